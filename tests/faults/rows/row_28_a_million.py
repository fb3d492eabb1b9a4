"""Very many of anything: no script holds up Redis for long, and no command is silent for long."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from taskapp.broker.dead_letters import REASONS, DeadLetters
from taskapp.broker.search import Search
from tests.faults.harness import Bench
from tests.faults.heaps import LONG_MS, QUEUE, Heap, repeat
from tests.faults.outcome import Outcome
from tests.support import clean_environment

FAULT = "a million of anything"
FEW = 10_000
MEDIAN_MS, RATIO, NOISE_MS = 5.0, 1.5, 0.1
SILENT_SECONDS = 5.0
TIMES, TRIES = 15, 3


def play(bench: Bench) -> Outcome:
    """Compare the median times of all scripts beside few and beside very many; then let commands handle very many."""
    many = bench.sized(30_000, 200_000, 1_000_000)
    bench.redis.client.config_set("appendonly", "no")
    slowest: tuple[float, str] = (0.0, "")
    for place in USES:
        problems: set[str] = set()
        for attempt in range(TRIES):
            medians = [_medians(bench, place, count) for count in (FEW, many)]
            # On a busy machine all takes longer now and then; what grows with the number does so each time.
            worse = {script for script, times in _compared(*medians).items() if _is_too_long(*times)}
            problems = worse if attempt == 0 else problems & worse
            if not problems:
                break
        for script, (few_ms, many_ms) in _compared(*medians).items():
            what = f"{script} beside {many:,} {place}"
            slowest = max(slowest, (many_ms, what))
            bench.judge.require(script not in problems, f"{what}: {many_ms:.2f} ms, {few_ms:.2f} ms beside {FEW:,}")
    bench.judge.remark(f"slowest script: {slowest[1]}, median {slowest[0]:.1f} ms")
    _play_commands(bench, Heap(bench.redis.port, many))
    return Outcome(passed=not bench.judge.problems, notes=bench.judge.notes)


def _medians(bench: Bench, place: str, count: int) -> dict[str, float]:
    heap = Heap(bench.redis.port, count)
    heap.begin()
    USES[place](heap)
    return heap.link.medians()


def _compared(few: dict[str, float], many: dict[str, float]) -> dict[str, tuple[float, float]]:
    return {script: (few.get(script, many_ms), many_ms) for script, many_ms in many.items()}


def _is_too_long(few_ms: float, many_ms: float) -> bool:
    return many_ms > MEDIAN_MS or many_ms > RATIO * few_ms + NOISE_MS


def _common(heap: Heap) -> None:
    """What happens all the time, whatever there is."""
    repeat(TIMES, heap.push, lambda: heap.push(1_000), lambda: heap.settle(heap.claim()), heap.beat)
    repeat(TIMES, lambda: heap.link.run("look", "", 0, 0, len(REASONS), *REASONS, QUEUE))
    heap.link.run("close", "", 0, heap.other)


def _ready(heap: Heap) -> None:
    heap.fill("ready")
    _common(heap)
    Search(heap.link, "", (QUEUE,)).find("nobody")


def _delayed(heap: Heap) -> None:
    heap.fill("delayed")
    _common(heap)
    ids = iter(f"{number:036d}" for number in range(FEW))
    in_an_hour = int(time.time() * 1_000) + 3_600_000
    repeat(TIMES, lambda: heap.push(due_ms=in_an_hour), lambda: heap.link.run("cancel", "", 0, QUEUE, next(ids)))
    repeat(TIMES, lambda: heap.link.run("reschedule", "", 0, QUEUE, next(ids), in_an_hour))


def _due(heap: Heap) -> None:
    heap.fill("due")
    repeat(TIMES, heap.claim)


def _parked(heap: Heap) -> None:
    heap.fill("parked")
    _common(heap)
    Search(heap.link, "", (QUEUE,)).find("nobody")
    at = b"0"
    for _ in range(TIMES):
        _, at = heap.link.run("empty", "", 0, QUEUE, at)


def _forgotten(heap: Heap) -> None:
    heap.fill("parked", since_ms=-LONG_MS)
    # Nodes tell of what was buried, meanwhile.
    repeat(3 * TIMES, heap.beat, lambda: heap.client.delete("taskapp:untold"))


def _dead(heap: Heap) -> None:
    heap.fill("dead")
    _common(heap)
    letters = DeadLetters(heap.link, "")
    numbers = [letter.number for letter in letters.find(limit=TIMES)]
    for number in numbers:
        letters.replay(QUEUE, number)
        letters.purge(QUEUE, range(number * 500, number * 500 + 500))
    repeat(TIMES, lambda: heap.settle(heap.claim(1), "D", "failed", "ValueError: no"))
    Search(heap.link, "", (QUEUE,)).find("nobody")


def _leased(heap: Heap) -> None:
    heap.fill("leased")
    _common(heap)
    at = b"0"
    for _ in range(TIMES):
        _, at, *_ = heap.link.run("recover", "", 0, heap.epoch, 0, at)
    Search(heap.link, "", (QUEUE,)).find("nobody")
    repeat(TIMES, lambda: heap.link.run("close", "", 0, heap.epoch))


def _reaped(heap: Heap) -> None:
    heap.fill("leased", epoch=heap.other)
    heap.end_lease(heap.other)
    repeat(TIMES, heap.beat)


def _results(heap: Heap) -> None:
    heap.fill("results")
    heap.push(1_000)
    value = '{"status": "SUCCESS", "result": 1}'
    repeat(TIMES, lambda: heap.settle(heap.claim(1), "R", "celery-task-meta-new", value, 86_400))


USES: dict[str, Callable[[Heap], None]] = {
    "ready": _ready, "delayed": _delayed, "due": _due, "parked types": _parked, "forgotten types": _forgotten,
    "dead": _dead, "leased": _leased, "leased by a dead node": _reaped, "results": _results,
}  # fmt: skip


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
    usual_seconds = {command: _run(bench, *command)[1] for command in COMMANDS}
    for place in ("ready", "delayed", "parked", "dead"):
        heap.fill(place)
    for command in COMMANDS:
        silent_seconds, took_seconds, output = _run(bench, *command)
        name, bound_seconds = " ".join(command), SILENT_SECONDS + usual_seconds[command]
        bench.judge.require(silent_seconds <= bound_seconds, f"{name} was silent for {silent_seconds:.1f} s: {output}")
        bench.judge.remark(f"{name} took {took_seconds:.1f} s, {usual_seconds[command]:.1f} s with nothing there")
    keys = (QUEUE, f"taskapp:{{{QUEUE}}}:delayed", f"taskapp:{{{QUEUE}}}:parked", f"taskapp:{{{QUEUE}}}:dead:failed")
    left = [key for key in keys if heap.client.exists(key)]
    bench.judge.require_none(left, "keys are left by the purges")


def _run(bench: Bench, program: str, *arguments: str) -> tuple[float, float, str]:
    """Run a command; return for how long it said nothing at most, how long it took, and the end of what it said."""
    environment = clean_environment(
        TASKAPP_BROKER_URL=bench.redis.url, TASKAPP_DATA_DIR=str(bench.directory / "data"), PYTHONUNBUFFERED="1"
    )
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
