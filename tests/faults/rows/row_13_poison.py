"""Tasks that kill the process they run in: at most three runs, then a dead letter; the pool survives."""

from __future__ import annotations

import contextlib
import time

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome
from tests.faults.processes import Worker
from tests.faults.producers import Submission, Submitter, acknowledged
from tests.support import eventually

FAULT = "poison: _exit, SIGKILL, MemoryError, hog"
MOST_RUNS = 3
ADDRESS_SPACE_BYTES = 4 * 1024**3
"""Far more than a worker takes, far less than ``faults.hog`` asks for."""
DEADLY = ("faults.exit", "faults.kill")
HUNGRY = ("faults.memory_error", "faults.hog")


def play(bench: Bench) -> Outcome:
    """Poison a pool of children, which outlives it, and workers that die of it and are started again."""
    producer = bench.start_submitter()
    sent = _poison_children(bench, producer)
    sent += _poison_threads(bench, producer)
    return bench.outcome(sent)


def _poison_children(bench: Bench, producer: Submitter) -> list[Submission]:
    worker = bench.start_worker("children", "-Q", "default", pool="prefork", limit_bytes=ADDRESS_SPACE_BYTES)
    before = producer.submit("faults.note", 20)
    poison = {task: producer.submit(task, bench.sized(1, 2, 5)) for task in (*DEADLY, *HUNGRY)}
    after = producer.submit("faults.note", 20)
    bench.runs.await_ended(acknowledged(before + after), 30)
    _judge(bench, "default", poison, 30)
    bench.require_alive(worker)
    last = producer.submit("faults.note", 10)
    survives = bench.runs.await_ended(acknowledged(last), 10)
    bench.judge.require(survives, "the pool of children does not run tasks any more")
    return [*before, *after, *last]


def _poison_threads(bench: Bench, producer: Submitter) -> list[Submission]:
    """The worker dies with its threads: its supervisor starts it again and again."""
    lives = [_start(bench)]
    innocent = producer.submit("faults.hold", 10, 0.2, queue="high")
    # One at a time: two that die together are each other's alibi.
    for task in DEADLY:
        poison = {task: producer.submit(task, queue="high")}
        innocent += producer.submit("faults.hold", 10, 0.2, queue="high")
        _supervise(bench, lives, {one.id for one in poison[task]})
        _judge(bench, "high", poison, 1)
    poison = {task: producer.submit(task, 1, queue="high") for task in HUNGRY}
    _judge(bench, "high", poison, 20)
    if lives[-1].exited:
        lives.append(_start(bench))
    bench.runs.await_ended(acknowledged(innocent), bench.patience_seconds)
    letters = {letter.id for letter in bench.dead_letters("high")}
    bench.judge.require_none({one.id for one in innocent} & letters, "innocent ones were buried")
    bench.require_alive(lives[-1])
    bench.judge.remark(f"the worker with threads died {len(lives) - 1} times")
    return innocent


def _start(bench: Bench) -> Worker:
    return bench.start_worker(
        "threads", "-Q", "high", pool="threads", concurrency=4, ready=False, limit_bytes=ADDRESS_SPACE_BYTES
    )


def _supervise(bench: Bench, lives: list[Worker], poison: set[str]) -> None:
    """Start the worker again when it died, as an init system does, until the poison is buried."""
    deadline = time.monotonic() + (MOST_RUNS + 1) * (bench.bound_seconds + 5)
    while time.monotonic() < deadline and not poison <= {letter.id for letter in bench.dead_letters("high")}:
        with contextlib.suppress(AssertionError):
            eventually(lambda: lives[-1].exited, 0.5)
        if lives[-1].exited:
            lives.append(_start(bench))


def _judge(bench: Bench, queue: str, poison: dict[str, list[Submission]], within_seconds: float) -> None:
    """Each poison ran at most three times and lies among the dead letters, with a reason."""
    ids = {one.id for submissions in poison.values() for one in submissions}
    with contextlib.suppress(AssertionError):
        eventually(lambda: ids <= {letter.id for letter in bench.dead_letters(queue)}, within_seconds, 0.2)
    letters = {letter.id: letter for letter in bench.dead_letters(queue)}
    bench.runs.refresh()
    for task, submissions in poison.items():
        for one in submissions:
            runs, letter = len(bench.runs.of(one.id)), letters.get(one.id)
            where = f"{queue}: {task} {one.id}"
            bench.judge.require(1 <= runs <= MOST_RUNS, f"{where} ran {runs} times, not up to {MOST_RUNS}")
            bench.judge.require(letter is not None, f"{where} is not among the dead letters after {runs} runs")
            if letter is not None:
                reason = "crashed" if task in DEADLY else "failed"
                bench.judge.require(letter.reason == reason, f"{where} was buried as {letter.reason!r}: {letter.error}")
