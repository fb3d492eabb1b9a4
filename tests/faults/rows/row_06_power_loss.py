"""The power fails: what was not yet on the disk is gone, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterable
from threading import Event, Thread

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, play_for
from tests.faults.processes import FaultyRedis
from tests.faults.producers import Submission, Submitter, acknowledged

FAULT = "power loss: the AOF without its last second"
CUT_SECONDS = 1.0
HOLD_SECONDS = 0.06
TORN = b"*3\r\n$3\r\nSET\r\n$4\r\nto"
"""A command of which only the beginning reached the disk."""


def play(bench: Bench) -> Outcome:
    """Cut the power in full flow, once with ``appendfsync everysec`` and once with ``always``."""
    workers = [bench.start_worker(pool, pool=pool, ready=False) for pool in ("default", "prefork")]
    bench.await_ready(*workers)
    producer = bench.start_submitter()
    sent: list[Submission] = []
    excused: set[str] = set()
    for fsync in ("everysec", "always"):
        bench.redis.kill()
        bench.redis.options["appendfsync"] = fsync
        bench.redis.start()
        more, may_be_missing = _lose_power(bench, producer, fsync)
        sent += more
        excused |= may_be_missing
    missing = set(acknowledged(sent)) - bench.runs.ended(acknowledged(sent))
    bench.judge.remark(f"{len(missing)} of the {len(excused)} acknowledged in the last second are gone")
    bench.require_alive(*workers)
    return bench.outcome(sent, excused=excused)


def _lose_power(bench: Bench, producer: Submitter, fsync: str) -> tuple[list[Submission], set[str]]:
    """Cut the power in the middle of a flow; return what was sent and what may be missing of it."""
    producer.submit("faults.note", 3)  # reopens the connection
    # More than the workers can run, so that many wait when the power fails.
    producer.begin("faults.hold", [{}] * bench.sized(300, 600, 4000), args=[HOLD_SECONDS], per_second=100)
    sizes = _SizeLog(bench.redis)
    play_for(bench.random.uniform(2.5, 3.5))
    died_at = time.monotonic()
    bench.redis.kill()
    sizes.stop()
    # Without fsync the last second is in no file; with `always` only an unacknowledged command is torn.
    if fsync == "everysec":
        kept_bytes, kept_at = sizes.at(died_at - CUT_SECONDS)
    else:
        kept_bytes, kept_at = bench.redis.log_of_changes.stat().st_size, died_at
    _cut(bench.redis, kept_bytes)
    bench.redis.start()
    sent = producer.finish()
    in_danger = {one.id for one in sent if one.acknowledged and kept_at <= one.answered_at and one.sent_at <= died_at}
    excused = in_danger if fsync == "everysec" else set()
    bench.runs.await_ended(set(acknowledged(sent)) - excused, bench.patience_seconds)
    bench.watch_for_repeats()
    _judge_repeats(bench, acknowledged(sent), kept_at, died_at, fsync)
    return sent, excused


def _cut(server: FaultyRedis, kept_bytes: int) -> None:
    with server.log_of_changes.open("r+b") as log:
        log.truncate(kept_bytes)
        log.seek(0, 2)
        log.write(TORN)


def _judge_repeats(bench: Bench, task_ids: Iterable[str], kept_at: float, died_at: float, fsync: str) -> None:
    """What ran, or ended, in the second that is gone runs again, rightly; nothing else does."""
    repeated = bench.runs.repeated(task_ids)
    # An end is logged a moment before it is settled, and running when the server dies is running while it is away.
    settled_at = kept_at - 0.5
    wrongly = set()
    for task_id in repeated:
        first = bench.runs.of(task_id)[0]
        if (first.ended_at is not None and first.ended_at < settled_at) or first.started_at > died_at + 1:
            wrongly.add(task_id)
    bench.judge.require_none(wrongly, f"ran twice without need ({fsync})")
    bench.judge.remark(f"{fsync}: {len(repeated)} ran twice")


class _SizeLog(Thread):
    """Notes how long the append-only file was at which moment."""

    def __init__(self, server: FaultyRedis) -> None:
        super().__init__(daemon=True)
        self._file, self._ended = server.log_of_changes, Event()
        self._sizes: list[tuple[float, int]] = []
        self.start()

    def run(self) -> None:
        while not self._ended.wait(0.02):
            self._sizes.append((time.monotonic(), self._file.stat().st_size))

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def at(self, moment: float) -> tuple[int, float]:
        """Return the size at ``moment`` and when it was taken, not later than that."""
        taken_at, size = max(entry for entry in self._sizes if entry[0] <= moment)
        return size, taken_at
