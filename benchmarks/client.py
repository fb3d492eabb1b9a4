"""The client of one measurement, run in the framework's own environment: ``python -m benchmarks.client saq``.

Reads calls as lines of JSON, ``["submit", {"count": 10}]``, and answers with lines of JSON: ``{"cpu_seconds": …}``
or ``{"error": …}``. Exits at the end of its input.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any

from benchmarks.adaptors import Call

LOOK_SECONDS = 0.005
BULK = 1_000
AT_ONCE = 20
"""How many results to wait for at once; clients that block still wait one by one."""


class Session:
    """The calls of the driver. Keeps the handles of tasks submitted since the last ``forget``."""

    def __init__(self, adaptor: Any) -> None:
        self.adaptor = adaptor
        self.handles: list[Any] = []
        self.numbers: list[int] = []
        self.due_at: list[float] = []

    async def submit(
        self, count: int, how: str = "one by one", name: str = "noop", bytes: int = 0, seconds: float = 0.0
    ) -> dict[str, float]:
        """Submit ``count`` tasks; return the CPU and wall time this took.

        Args:
            count: Number of tasks.
            how: ``one by one``, or ``bulk``: a thousand in one call.
            name: The task.
            bytes: Size of the padding of a ``noop``.
            seconds: Duration of a ``nap``.
        """
        first = len(self.handles)
        padding = "x" * bytes
        self.numbers += range(first, first + count)
        calls: list[Call] = [
            (name, (number, padding) if name == "noop" else (seconds,)) for number in range(first, first + count)
        ]
        began, cpu = time.perf_counter(), time.process_time()
        if how == "bulk":
            for start in range(0, count, BULK):
                self.handles += await self.adaptor.submit_many(calls[start : start + BULK])
        else:
            for called, arguments in calls:
                self.handles.append(await self.adaptor.submit(called, *arguments))
        return {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - began}

    async def schedule(
        self, first: int, count: int, first_at: float, apart_seconds: float, every_seconds: float
    ) -> dict[str, float]:
        """Add timed jobs ``job-000000`` and so on; return the CPU and wall time this took.

        Args:
            first: Number of the first.
            count: Number of jobs.
            first_at: First due time of the first job, Unix seconds.
            apart_seconds: How much later each job is due than the one before it.
            every_seconds: Interval of each job.
        """
        began, cpu = time.perf_counter(), time.process_time()
        jobs = [(f"job-{first + number:06}", first_at + number * apart_seconds) for number in range(count)]
        await self.adaptor.schedule(jobs, every_seconds)
        return {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - began}

    async def wait_for(self, index: int, within_seconds: float) -> dict[str, float]:
        """Wait until the result of the task submitted as number ``index`` is stored."""
        deadline = time.monotonic() + within_seconds
        while not await self.adaptor.is_done(self.handles[index]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"task {index} of {len(self.handles)} was not done after {within_seconds:.0f} s")
            await asyncio.sleep(LOOK_SECONDS)
        return {}

    async def done(self, index: int) -> dict[str, float]:
        """Wait until task number ``index`` is done; return how many are done, provided they finish in order."""
        step = 1
        while index + step < len(self.handles) and await self.adaptor.is_done(self.handles[index + step]):
            index, step = index + step, 2 * step
        while step > 1:
            step //= 2
            if index + step < len(self.handles) and await self.adaptor.is_done(self.handles[index + step]):
                index += step
        return {"done": index + 1}

    async def missing(self, within_seconds: float) -> dict[str, float]:
        """Wait until every task is done; return how many never were, and ignore those from now on."""
        deadline, waiting = time.monotonic() + within_seconds, list(enumerate(self.handles))
        while waiting:
            waiting = [(number, handle) for number, handle in waiting if not await self.adaptor.is_done(handle)]
            if time.monotonic() > deadline:
                break
        for number, _handle in reversed(waiting):
            del self.handles[number], self.numbers[number]
        return {"missing": len(waiting)}

    async def read_back(self) -> dict[str, float]:
        """Read the result of every ``noop`` and check that it is right."""
        began, cpu = time.perf_counter(), time.process_time()
        for number, found in zip(self.numbers, await self._results(), strict=True):
            if found != number:
                raise ValueError(f"task {number} has the result {found!r}")
        return {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - began}

    async def results(self) -> dict[str, list[Any]]:
        """Return all results, in the order of submission."""
        return {"results": await self._results()}

    async def _results(self) -> list[Any]:
        found: list[Any] = []
        for first in range(0, len(self.handles), AT_ONCE):
            some = self.handles[first : first + AT_ONCE]
            found += await asyncio.gather(*(self.adaptor.result(handle) for handle in some))
        return found

    async def round_trips(self, count: int, pause_seconds: float, seed: int) -> dict[str, list[float]]:
        """Submit ``count`` tasks one by one, each after the previous result was read and a random pause.

        Returns the seconds from before the submit to the start of the task, and to the arrival of its result.
        """
        rng = random.Random(seed)
        started, ended = [], []
        for _ in range(count):
            await asyncio.sleep(rng.uniform(0.2, 1.8) * pause_seconds)
            began_at = time.time()
            started_at = await self.adaptor.result(await self.adaptor.submit("stamp"))
            ended.append(time.time() - began_at)
            started.append(started_at - began_at)
        return {"started_seconds": started, "ended_seconds": ended}

    async def delay(self, count: int, first_seconds: float, spread_seconds: float) -> dict[str, float]:
        """Submit ``count`` tasks with evenly spread due times, the first ``first_seconds`` from now."""
        now, began, cpu = time.time(), time.perf_counter(), time.process_time()
        for number in range(count):
            due_at = now + first_seconds + spread_seconds * number / count
            self.handles.append(await self.adaptor.submit_at(due_at, "stamp"))
            self.due_at.append(due_at)
        return {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - began}

    async def wait_far(self, count: int, seconds: float) -> dict[str, float]:
        """Submit ``count`` tasks that are due only after the measurement."""
        for first in range(0, count, BULK):
            calls: list[Call] = [("stamp", ())] * min(BULK, count - first)
            await self.adaptor.submit_many_at(time.time() + seconds, calls)
        return {}

    async def lateness(self) -> dict[str, list[float]]:
        """Return how many seconds after its due time each delayed task started."""
        found = await self._results()
        return {"late_seconds": [at - due_at for at, due_at in zip(found, self.due_at, strict=True)]}

    async def forget(self) -> dict[str, float]:
        """Forget all handles."""
        self.handles, self.numbers, self.due_at = [], [], []
        return {}


async def answer(session: Session, line: str) -> dict[str, Any]:
    """Carry out the call in one line."""
    what, keywords = json.loads(line)
    call: Callable[..., Awaitable[dict[str, Any]]] = getattr(session, what)
    try:
        return await call(**keywords)
    except Exception as error:  # noqa: BLE001 - the driver receives it and continues with the next measurement
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


async def serve(framework: str, replies: Any) -> None:
    """Answer calls until the input ends."""
    adaptor = import_module(f"benchmarks.adaptors.{framework}").Client()
    await adaptor.open()
    session, loop = Session(adaptor), asyncio.get_running_loop()
    print(json.dumps({"ready": True}), file=replies, flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await answer(session, line)), file=replies, flush=True)
    await adaptor.close()


def main(arguments: Sequence[str]) -> None:
    # Output of a framework must not be mistaken for an answer.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        runner = asyncio.Runner(loop_factory=import_module("uvloop").new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with runner:
        runner.run(serve(arguments[0], replies))


if __name__ == "__main__":
    main(sys.argv[1:])
