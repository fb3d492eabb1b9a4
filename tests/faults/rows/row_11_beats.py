"""Three beats, the one that leads killed or frozen over and over: each due time once, missing by policy alone."""

from __future__ import annotations

import time

from taskapp.schedules.store import Schedules
from tests.faults.beats import TAKEOVER_SECONDS, Beats
from tests.faults.execution_log import TICKS_SUFFIX
from tests.faults.harness import TASKS, Bench
from tests.faults.outcome import Outcome, play_for, quantile
from tests.faults.producers import Submission
from tests.faults.stock_beats import play_stock
from tests.faults.tick_audit import Audit, Found, Recorder
from tests.faults.timetable import Entry, timetable
from tests.support import eventually

FAULT = "3 beats; the leader killed or frozen"
PLAYS_STOCK = True
TICK_TASKS = f"{TASKS},tests.faults.tick_tasks"
QUIET_SECONDS = 8.0
"""At the end, for the last leader: what was due is over then."""
FAULTS = ("kill", "kill", "freeze", "freeze", "blink")
FROZEN_SECONDS = {"freeze": (6.0, 9.0), "blink": (0.5, 4.0)}
"""Longer than the lease, and shorter."""


def play(bench: Bench) -> Outcome:
    """Let schedules of all kinds be due while their leader dies or freezes every 10 to 20 s."""
    if bench.engine == "stock":
        return play_stock(bench)
    lasts_seconds = bench.sized(15, 60, 600)
    # Two connections: the recorder reads on a thread of its own.
    with bench.redis.link() as link, bench.redis.link() as recorders:
        schedules = Schedules(link, "", lambda *_: ())
        beats = Beats(bench, schedules, 3)
        try:
            bench.start_worker("a", "-Q", "default", concurrency=40, include=TICK_TASKS)
            beats.leading()
            entries = _add(bench, schedules, bench.sized(40, 200, 200), lasts_seconds)
            recorder = Recorder(Schedules(recorders, "", lambda *_: ()), entries)
            recorder.start()
            _break(bench, beats, entries[0].schedule.end_at or 0.0)
            _await_end(schedules, entries)
            recorder.stop()
        finally:
            beats.close()
        return _judged(bench, entries, recorder, beats)


def _add(bench: Bench, schedules: Schedules, count: int, lasts_seconds: int) -> list[Entry]:
    begins_at = int(time.time()) + 3
    entries = timetable(bench.random, count, begins_at, begins_at + lasts_seconds)
    for entry in entries:
        schedules.add(entry.schedule)
    bench.judge.require(time.time() < begins_at, "adding the schedules took too long; the first due times are past")
    return entries


def _break(bench: Bench, beats: Beats, ends_at: float) -> None:
    """Kill and freeze the leader until the end is near."""
    while not beats.takeovers or time.time() + bench.sized(60.0, 20.0, 20.0) < ends_at:
        play_for(bench.random.uniform(*bench.sized((5.0, 6.0), (4.0, 9.0), (4.0, 12.0))))
        fault = bench.random.choice(("kill", "freeze") if bench.size == "smoke" else FAULTS)
        if fault == "kill":
            beats.kill_leader()
        else:
            beats.freeze_leader(bench.random.uniform(*FROZEN_SECONDS[fault]))


def _await_end(schedules: Schedules, entries: list[Entry]) -> None:
    """Return when no schedule is due any more."""
    # A tick that is due just before the end is sent later by its jitter.
    last_at = max((entry.schedule.end_at or 0.0) + entry.schedule.jitter_seconds for entry in entries)
    play_for(last_at - time.time())
    names = {entry.schedule.name for entry in entries}

    def all_ended() -> bool:
        left = {name for name in names if schedules.get(name).state == "active"}
        names.intersection_update(left)
        return not names

    eventually(all_ended, QUIET_SECONDS + TAKEOVER_SECONDS, every_seconds=0.2)


def _judged(bench: Bench, entries: list[Entry], recorder: Recorder, beats: Beats) -> Outcome:
    ids = [tick.id for ticks in recorder.ticks.values() for tick in ticks.values() if tick.state != "SKIPPED"]
    bench.runs.await_ended(ids, bench.bound_seconds)
    bench.watch_for_repeats()
    audit = Audit(recorder, bench.runs, beats.takeovers)
    for entry in entries:
        audit.check(entry)
    audit.check_log(entries, bench.runs.log.with_name(bench.runs.log.name + TICKS_SUFFIX))
    audit.found.tell(bench.judge)
    _remark(bench, audit.found, beats)
    bench.require_alive(*bench.workers)
    sent = [Submission(identity, 0.0, 0.0, None, None, None) for identity in ids]
    takeovers = [each.seconds for each in beats.takeovers if each.is_led_by_another]
    slowest = max(takeovers, default=0.0)
    bench.judge.require(slowest <= TAKEOVER_SECONDS, f"another led only after {slowest:.1f} s")
    return bench.outcome(sent, recoveries=takeovers)


def _remark(bench: Bench, found: Found, beats: Beats) -> None:
    p50, p99 = (quantile(found.late_ms, share) or 0.0 for share in (0.5, 0.99))
    counts = ", ".join(f"{count:,} {what}" for what, count in found.counts.items())
    bench.judge.remark(f"{counts}; sent minus due p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    faults = [each.fault for each in beats.takeovers]
    bench.judge.remark(", ".join(f"{faults.count(fault)} times {fault}" for fault in dict.fromkeys(faults)))
