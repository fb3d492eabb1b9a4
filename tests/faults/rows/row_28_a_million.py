"""Very many of anything: no script holds up Redis for long, and no command is silent for long."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import zip_longest
from typing import Any

from taskapp.engine.dead_letters import PURGED_AT_ONCE, REASONS, DeadLetters
from taskapp.engine.node import GIVEN_BACK_AT_ONCE
from taskapp.engine.search import Search
from taskapp.engine.settle_buffer import SETTLED_AT_ONCE
from tests.faults.filling import QUEUE, SUCCESS
from tests.faults.harness import Bench
from tests.faults.heaps import LONG_MS, Heap, repeat
from tests.faults.outcome import Outcome
from tests.support import clean_environment

FAULT = "a million of anything"
FEW = 10_000
MEDIAN_MS, RATIO, NOISE_MS = 5.0, 1.5, 0.1
SILENT_SECONDS = 5.0
TIMES, TRIES = 21, 3
STEPS_TIMED = 100
"""About how many steps of a search."""

Use = Callable[[Heap], Iterator[None]]


def play(bench: Bench) -> Outcome:
    """Compare the times of all scripts with few and with very many; then let commands handle very many."""
    most = bench.sized(30_000, 200_000, 1_000_000)
    few = Heap(bench.start_server("few", {}).port, FEW, beside=most - FEW)
    many = Heap(bench.start_server("many", {}).port, most)
    slowest: tuple[float, str] = (0.0, "")
    for place, use in USES.items():
        problems: set[str] = set()
        for attempt in range(TRIES):
            medians = _medians(few, many, use, is_searched=place in SEARCHED)
            # What grows with the number does so each time.
            worse = {script for script, times in medians.items() if _is_too_long(*times)}
            problems = worse if attempt == 0 else problems & worse
            if not problems:
                break
        for script, (few_ms, many_ms) in medians.items():
            what = f"{script} with {most:,} {place}"
            slowest = max(slowest, (many_ms, what))
            bench.judge.require(script not in problems, f"{what}: {many_ms:.2f} ms, {few_ms:.2f} ms with {FEW:,}")
    bench.judge.remark(f"slowest script: {slowest[1]}, median {slowest[0]:.1f} ms")
    _play_commands(bench, many)
    return Outcome(passed=not bench.judge.problems, notes=bench.judge.notes)


def _medians(few: Heap, many: Heap, use: Use, *, is_searched: bool) -> dict[str, tuple[float, float]]:
    """Use both in turns, so that whatever else the machine does strikes both; return the medians of each script."""
    for heap in (few, many):
        heap.begin()
    for _ in zip_longest(use(few), use(many)):
        pass
    if is_searched:
        _search(few, many)
    times = few.link.medians(), many.link.medians()
    return {script: (times[0].get(script, many_ms), many_ms) for script, many_ms in times[1].items()}


class _LookedAtAll(Exception):
    """A search has gone through all there is once; it would look again where something may have come meanwhile."""


def _search(few: Heap, many: Heap) -> None:
    """Look for nobody everywhere among many; steps among few take turns with those."""

    def note(looked_at: int) -> None:
        if looked_at > 1.1 * many.count + 2 * TIMES * 1_000:
            raise _LookedAtAll

    Search(few.link, "", (QUEUE,)).find("nobody")
    many.link.timed_steps, many.link.companion = max(1, many.count // 500 // STEPS_TIMED), few.link
    with suppress(_LookedAtAll):
        Search(many.link, "", (QUEUE,), on_step=note).find("nobody")


def _is_too_long(few_ms: float, many_ms: float) -> bool:
    return many_ms > MEDIAN_MS or many_ms > RATIO * few_ms + NOISE_MS


def _common(heap: Heap) -> Iterator[None]:
    """What happens all the time, whatever there is."""
    yield from repeat(TIMES, heap.push, lambda: heap.push(1_000), lambda: heap.settle(heap.claim()), heap.beat)
    yield from repeat(TIMES, lambda: heap.link.run("look", "", 0, 0, len(REASONS), *REASONS, QUEUE))
    yield from repeat(TIMES, heap.open, heap.close)


def _ready(heap: Heap) -> Iterator[None]:
    heap.fill("ready")
    yield from _common(heap)
    for _ in range(TIMES // 3):
        tags = heap.claim(1_000)
        yield
        for first in range(0, len(tags) // 2, GIVEN_BACK_AT_ONCE):
            heap.give_back(tags[first : first + GIVEN_BACK_AT_ONCE])
            yield
        for first in range(len(tags) // 2, len(tags), SETTLED_AT_ONCE):
            heap.settle(tags[first : first + SETTLED_AT_ONCE], "R", "celery-task-meta-new", SUCCESS, 60)
            yield
    yield from repeat(TIMES, lambda: heap.park(heap.claim(1)))


def _delayed(heap: Heap) -> Iterator[None]:
    heap.fill("delayed")
    yield from _common(heap)
    ids = iter(f"{number:036d}" for number in range(FEW))
    in_an_hour = int(time.time() * 1_000) + 3_600_000
    yield from repeat(
        TIMES,
        lambda: heap.push(due_ms=in_an_hour),
        lambda: heap.link.run("cancel", "", 0, QUEUE, next(ids)),
        lambda: heap.link.run("reschedule", "", 0, QUEUE, next(ids), in_an_hour),
    )


def _due(heap: Heap) -> Iterator[None]:
    heap.fill("due")
    yield from repeat(TIMES, heap.claim)


def _parked(heap: Heap) -> Iterator[None]:
    heap.fill("parked")
    yield from _common(heap)
    at = b"0"
    for _ in range(TIMES):
        _, at = heap.link.run("empty", "", 0, QUEUE, at)
        yield


def _forgotten(heap: Heap) -> Iterator[None]:
    heap.fill("parked", since_ms=-LONG_MS)
    # Meanwhile nodes report what was buried.
    yield from repeat(3 * TIMES, heap.beat, lambda: heap.client.delete("taskapp:untold"))


def _dead(heap: Heap) -> Iterator[None]:
    heap.fill("dead")
    yield from _common(heap)
    letters = DeadLetters(heap.link, "")
    numbers = [letter.number for letter in letters.find(limit=TIMES)]
    for position, number in enumerate(numbers):
        letters.replay(QUEUE, number)
        letters.purge(QUEUE, range(1 + position * PURGED_AT_ONCE, 1 + (position + 1) * PURGED_AT_ONCE))
        yield
    yield from repeat(TIMES, lambda: heap.settle(heap.claim(1), "D", "failed", "ValueError: no"))


def _leased(heap: Heap) -> Iterator[None]:
    heap.fill("leased")
    yield from _common(heap)
    at = b"0"
    for _ in range(TIMES):
        _, at, *_ = heap.link.run("recover", "", 0, heap.epoch, 0, at)
        yield
    yield from repeat(TIMES, lambda: heap.link.run("close", "", 0, heap.epoch))
    heap.end_lease()
    yield from repeat(TIMES, lambda: heap.beat("beat that reaps"))


def _results(heap: Heap) -> Iterator[None]:
    heap.fill("results")
    result = ("R", "celery-task-meta-new", SUCCESS, 86_400)
    yield from repeat(TIMES, heap.push, lambda: heap.settle(heap.claim(1), *result))


USES: dict[str, Use] = {
    "ready": _ready, "delayed": _delayed, "due": _due, "parked types": _parked, "forgotten types": _forgotten,
    "dead": _dead, "leased": _leased, "results": _results,
}  # fmt: skip
SEARCHED = ("ready", "delayed", "parked types", "dead", "leased")


# --- what people call ---------------------------------------------------------------------------------


COMMANDS = (
    ("taskapp", "task", "show", "nobody"),
    ("taskapp", "dead", "list"),
    ("taskapp", "delayed", "list"),
    ("taskapp", "top", "--once"),
    ("taskapp", "dead", "purge", "--all", "--yes"),
    ("celery", "-A", "taskapp", "purge", "-f"),
)


def _play_commands(bench: Bench, heap: Heap) -> None:
    heap.begin()
    usual_seconds = {command: _run(bench, heap.port, *command)[1] for command in COMMANDS}
    for place in ("ready", "delayed", "parked", "dead"):
        heap.fill(place)
    for command in COMMANDS:
        silent_seconds, took_seconds, output = _run(bench, heap.port, *command)
        name, bound_seconds = " ".join(command), SILENT_SECONDS + usual_seconds[command]
        bench.judge.require(silent_seconds <= bound_seconds, f"{name} was silent for {silent_seconds:.1f} s: {output}")
        bench.judge.remark(f"{name} took {took_seconds:.1f} s, {usual_seconds[command]:.1f} s with nothing there")
    keys = (QUEUE, f"taskapp:{{{QUEUE}}}:delayed", f"taskapp:{{{QUEUE}}}:parked", f"taskapp:{{{QUEUE}}}:dead:failed")
    left = [key for key in keys if heap.client.exists(key)]
    bench.judge.require_none(left, "keys are left by the purges")


def _run(bench: Bench, port: int, program: str, *arguments: str) -> tuple[float, float, str]:
    """Run a command; return for how long it said nothing at most, how long it took, and the end of what it said."""
    url, data = f"redis://127.0.0.1:{port}/0", str(bench.directory / "data")
    environment = clean_environment(TASKAPP_BROKER_URL=url, TASKAPP_DATA_DIR=data, PYTHONUNBUFFERED="1")
    argv = [sys.executable, "-m", program, *arguments]
    begun_at = said_at = time.monotonic()
    silent_seconds, said = 0.0, b""
    with subprocess.Popen(
        argv, env=environment, cwd=bench.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        while chunk := _read(process):
            now = time.monotonic()
            silent_seconds, said_at, said = max(silent_seconds, now - said_at), now, (said + chunk)[-300:]
    ended_at = time.monotonic()
    silent_seconds = max(silent_seconds, ended_at - said_at)
    return silent_seconds, ended_at - begun_at, said.decode(errors="replace")


def _read(process: Any) -> bytes:
    chunk: bytes = process.stdout.read1(65_536)
    return chunk
