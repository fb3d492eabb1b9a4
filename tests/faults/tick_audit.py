"""Holds what beats queued and workers ran against the timetable: each due time by itself."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from taskapp.schedules.reader import Register
from taskapp.schedules.record import Tick
from taskapp.schedules.times import jitter_ms, tick_id
from tests.faults.beats import Takeover
from tests.faults.outcome import Judge
from tests.faults.runs import Run, Runs
from tests.faults.timetable import Entry

IN_TIME_MS = 1_000
"""How late a tick may be while a beat leads, on a busy machine."""
CATCHES_UP_MS = 500
"""How long after its first tick a new leader may take for what was due meanwhile."""
EARLY_MS = 2
HANDLING_MS = 250
"""A beat that was hit may not have come to what was due so shortly before; what it decides to send arrives later."""
SETTLES_SECONDS = 0.5
"""How long after the end of a run its schedule may still take it for unfinished."""


class Recorder(threading.Thread):
    """Reads what the schedules say of their last ticks, often enough to miss none."""

    def __init__(self, schedules: Register, entries: Iterable[Entry]) -> None:
        super().__init__(name="recorder", daemon=True)
        self._schedules, self._entries = schedules, list(entries)
        self._stopping = threading.Event()
        self.ticks: defaultdict[str, dict[int, Tick]] = defaultdict(dict)
        """By schedule and due time (ms): as it was seen first, its state as it was seen last."""
        self.twice: set[str] = set()

    def run(self) -> None:
        """Read once a second."""
        while not self._stopping.wait(1.0):
            self._read()

    def stop(self) -> None:
        """Read a last time."""
        self._stopping.set()
        self.join()
        self._read()

    def _read(self) -> None:
        for entry in self._entries:
            name = entry.schedule.name
            ticks = self._schedules.ticks(name)
            dues = Counter(tick.due_at for tick in ticks)
            self.twice |= {f"{name} of {due}" for due, count in dues.items() if count > 1}
            for tick in ticks:
                due_ms = round(tick.due_at * 1_000)
                first = self.ticks[name].get(due_ms, tick)
                self.ticks[name][due_ms] = tick._replace(sent_at=first.sent_at)


@dataclass
class Found:
    """What is wrong, tick by tick, and how many there were."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    untimely: list[str] = field(default_factory=list)
    overlapping: list[str] = field(default_factory=list)
    skipped_for_nothing: list[str] = field(default_factory=list)
    over_bound: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    late_ms: list[float] = field(default_factory=list)
    """Of those that were due while a beat led."""

    def tell(self, judge: Judge) -> None:
        """Fail the row for each kind of problem there is."""
        judge.require_none(self.missing, "due times were neither sent nor dropped by their policy")
        judge.require_none(self.unexpected, "ticks of due times that are none")
        judge.require_none(self.twice, "ticks ran or were queued twice")
        judge.require_none(self.untimely, "ticks were early, late, or sent beyond their grace")
        judge.require_none(self.overlapping, "runs overlap that must not")
        judge.require_none(self.skipped_for_nothing, "ticks were skipped though no run was unfinished")
        judge.require_none(self.over_bound, "schedules ran more often than they may")


class Audit:
    """Judges the ticks of one schedule after another.

    Args:
        recorder: What was queued.
        runs: What ran.
        takeovers: When nobody led.
    """

    def __init__(self, recorder: Recorder, runs: Runs, takeovers: Iterable[Takeover]) -> None:
        self._recorder, self._runs = recorder, runs
        self._outages = [
            (each.from_at * 1_000 - HANDLING_MS, each.until_at * 1_000 + CATCHES_UP_MS) for each in takeovers
        ]
        self._wall_at_zero = time.time() - time.monotonic()
        self.found = Found(twice=sorted(recorder.twice))

    def check(self, entry: Entry) -> None:
        """Judge one schedule."""
        ticks = self._recorder.ticks[entry.schedule.name]
        expected = set(entry.dues)
        self.found.unexpected += [self._said(entry, due) for due in ticks if due not in expected]
        self.found.counts["due"] += len(expected)
        for due in entry.dues:
            if due in ticks:
                self._check_sent(entry, due, ticks[due])
            elif self._has_ended(entry, due, ticks):
                self.found.counts["after the last run"] += 1
            elif self._may_be_dropped(entry, due, ticks):
                self.found.counts["dropped by policy"] += 1
            else:
                self.found.missing.append(self._said(entry, due))
        self._check_runs(entry, ticks)

    def check_log(self, entries: Iterable[Entry], log: Path) -> None:
        """Judge the arguments of the tasks: each is a due time of a schedule, under the id for exactly that one."""
        dues = {entry.schedule.name: set(entry.dues) for entry in entries}
        for line in log.read_text().splitlines():
            identity, due_at, name = line.split(" ")
            due_ms = round(float(due_at) * 1_000)
            if due_ms not in dues.get(name, ()) or identity != tick_id(name, due_ms):
                self.found.unexpected.append(line)

    # --- one tick --------------------------------------------------------------------------------------

    def _check_sent(self, entry: Entry, due: int, tick: Tick) -> None:
        late_ms = tick.sent_at * 1_000 - _at(entry, due)
        is_due_in_outage = self._outage(_at(entry, due)) is not None
        if not is_due_in_outage:
            self.found.late_ms.append(late_ms)
        most_ms = float("inf") if is_due_in_outage else IN_TIME_MS
        if entry.schedule.misfire == "skip":
            most_ms = min(most_ms, max(entry.schedule.grace_seconds * 1_000, IN_TIME_MS) + HANDLING_MS)
        if not -EARLY_MS <= late_ms <= most_ms and not self._waited(entry, due, tick):
            self.found.untimely.append(f"{self._said(entry, due)} by {late_ms:.0f} ms")
        if tick.state == "SKIPPED":
            self.found.counts["skipped"] += 1
            if not self._was_running(entry, due, tick):
                self.found.skipped_for_nothing.append(self._said(entry, due))
            return
        self.found.counts["sent"] += 1
        runs = self._runs.of(tick.id)
        if len(runs) > 1:
            self.found.twice.append(self._said(entry, due))

    def _was_running(self, entry: Entry, due: int, tick: Tick) -> bool:
        """Return whether a run before it had not ended when it was skipped, or had just ended."""
        earliest = tick.sent_at - SETTLES_SECONDS
        return any(ended_at is None or ended_at >= earliest for ended_at in self._ends_before(entry, due))

    def _waited(self, entry: Entry, due: int, tick: Tick) -> bool:
        """Return whether it was sent in the step that ended a run before it, for which it had waited."""
        if entry.schedule.overlap != "queue":
            return False
        ends = [ended_at for ended_at in self._ends_before(entry, due) if ended_at is not None]
        return any(
            0 <= tick.sent_at - ended_at <= SETTLES_SECONDS and ended_at * 1_000 > _at(entry, due) for ended_at in ends
        )

    def _ends_before(self, entry: Entry, due: int) -> list[float | None]:
        """Return when the runs of its schedule that were due before it ended; ``None``: they had not."""
        before = [each for other, each in self._recorder.ticks[entry.schedule.name].items() if other < due]
        runs = [run for each in before if each.state != "SKIPPED" for run in self._runs.of(each.id)]
        return [None if run.ended_at is None else run.ended_at + self._wall_at_zero for run in runs]

    def _has_ended(self, entry: Entry, due: int, ticks: Mapping[int, Tick]) -> bool:
        bound = entry.schedule.max_runs
        before = [tick for other, tick in ticks.items() if other < due and tick.state != "SKIPPED"]
        return 0 < bound <= len(before)

    def _may_be_dropped(self, entry: Entry, due: int, ticks: Mapping[int, Tick]) -> bool:
        """Return whether no beat led when it was due and its policy drops it for later ones, or for being late."""
        outage = self._outage(_at(entry, due))
        if outage is None:
            return False
        followers = [other for other in entry.dues if other > due and other in ticks and _at(entry, other) <= outage[1]]
        if entry.schedule.misfire == "catch_up":
            return len(followers) >= entry.schedule.catch_up_most
        if entry.schedule.misfire == "skip" and outage[1] - _at(entry, due) > entry.schedule.grace_seconds * 1_000:
            return True
        return bool(followers)

    def _outage(self, at_ms: float) -> tuple[float, float] | None:
        return next((outage for outage in self._outages if outage[0] <= at_ms <= outage[1]), None)

    # --- its runs --------------------------------------------------------------------------------------

    def _check_runs(self, entry: Entry, ticks: Mapping[int, Tick]) -> None:
        ids = [tick.id for tick in ticks.values() if tick.state != "SKIPPED"]
        if 0 < entry.schedule.max_runs < len(ids):
            self.found.over_bound.append(entry.schedule.name)
        if entry.schedule.overlap != "allow":
            runs = sorted((run for identity in ids for run in self._runs.of(identity)), key=_started_at)
            for earlier, later in pairwise(runs):
                if earlier.ended_at is None or later.started_at < earlier.ended_at:
                    self.found.overlapping.append(f"{entry.schedule.name} at {later.started_at:.3f}")

    @staticmethod
    def _said(entry: Entry, due: int) -> str:
        return f"{entry.schedule.name} of {due}"


def _started_at(run: Run) -> float:
    return run.started_at


def _at(entry: Entry, due_ms: int) -> int:
    """Return when a tick is to be sent, ms."""
    name, width_seconds = entry.schedule.name, entry.schedule.jitter_seconds
    return due_ms + jitter_ms(name, due_ms, round(width_seconds * 1_000))
