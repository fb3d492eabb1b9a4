"""The judge of row 11 finds what it is there to find."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from taskapp.redis.link import Link
from taskapp.schedules.reader import Register
from taskapp.schedules.record import Tick
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.times import Interval, tick_id
from tests.faults.beats import Takeover
from tests.faults.runs import Run, Runs
from tests.faults.tick_audit import Audit, Found, Recorder
from tests.faults.timetable import Entry, timetable

DUES = tuple(range(1_000_000, 1_010_000, 1_000))
OUTAGE = Takeover("killed", 1_002.5, 1_006.3, is_led_by_another=True)
"""1003, 1004, 1005 and 1006 are due while nobody leads; the new leader queues its first tick at 1006.3."""


def audit_of(
    tmp_path: Path, sent: dict[int, float], policy: dict[str, Any] | None = None,
    states: dict[int, str] | None = None, takes_seconds: float = 0.1,
) -> Found:  # fmt: skip
    """Judge a schedule of every second: ``sent`` is second to how late it was sent."""
    entry = Entry(Schedule("job", "faults.tick", Interval(1.0), **(policy or {})), DUES, 0.0)
    recorder, runs = Recorder(_no_schedules(), [entry]), Runs(tmp_path / "log")
    to_monotonic = time.monotonic() - time.time()
    for second, late_seconds in sent.items():
        identity, state = tick_id("job", second * 1_000), (states or {}).get(second, "SUCCESS")
        recorder.ticks["job"][second * 1_000] = Tick(identity, second, second + late_seconds, state, None)
        if state != "SKIPPED":
            at = second + late_seconds + to_monotonic
            runs.by_id[identity].append(Run("a", 1, 0, at, at + takes_seconds))
    audit = Audit(recorder, runs, [OUTAGE])
    audit.check(entry)
    return audit.found


def _no_schedules() -> Register:
    return Register(Link(lambda: None), "")  # type: ignore[arg-type]  # never asked


def problems(found: Found) -> dict[str, int]:
    kinds = ("missing", "unexpected", "twice", "untimely", "overlapping", "skipped_for_nothing", "over_bound")
    return {kind: len(getattr(found, kind)) for kind in kinds if getattr(found, kind)}


ON_TIME = dict.fromkeys((1000, 1001, 1002, 1007, 1008, 1009), 0.01)
LATE = {second: 1006.3 - second for second in (1003, 1004, 1005, 1006)}


def late(*seconds: int) -> dict[int, float]:
    return {second: LATE[second] for second in seconds}


@pytest.mark.parametrize(
    ("policy", "sent"),
    [
        ({"misfire": "once"}, late(1006)),
        ({"misfire": "catch_up"}, LATE),
        ({"misfire": "catch_up", "catch_up_most": 2}, late(1005, 1006)),
        ({"misfire": "skip", "grace_seconds": 2}, late(1006)),
        ({"misfire": "skip", "grace_seconds": 0.3}, {}),
        ({"misfire": "once", "max_runs": 3}, {}),
    ],
)
def test_what_a_policy_drops_is_not_missing(tmp_path, policy, sent):
    ended = policy.get("max_runs")
    on_time = {second: ON_TIME[second] for second in list(ON_TIME)[:ended]}

    assert problems(audit_of(tmp_path, on_time | sent, policy)) == {}


@pytest.mark.parametrize(
    ("policy", "sent"),
    [
        ({"misfire": "once"}, {}),
        ({"misfire": "once"}, late(1005)),
        ({"misfire": "catch_up"}, late(1004, 1005, 1006)),
        ({"misfire": "catch_up", "catch_up_most": 2}, late(1006)),
        ({"misfire": "skip", "grace_seconds": 5}, {}),
    ],
)
def test_what_no_policy_drops_is_missing(tmp_path, policy, sent):
    assert problems(audit_of(tmp_path, ON_TIME | sent, policy))["missing"] >= 1


def test_nothing_may_be_missing_while_a_beat_leads(tmp_path):
    sent = {second: late for second, late in (ON_TIME | LATE).items() if second != 1008}

    assert problems(audit_of(tmp_path, sent)) == {"missing": 1}


@pytest.mark.parametrize(
    ("changed", "policy", "expected"),
    [
        ({1001: -0.1}, {}, {"untimely": 1}),
        ({1001: 1.2}, {}, {"untimely": 1}),
        ({1003: 3.5}, {"misfire": "skip", "grace_seconds": 2}, {"untimely": 1}),
        ({990: 0.0}, {}, {"unexpected": 1}),
        ({1000: 0.01}, {"max_runs": 9}, {"over_bound": 1}),
    ],
)
def test_a_tick_that_is_early_late_unknown_or_too_many_is_found(tmp_path, changed, policy, expected):
    sent = ON_TIME | (late(1005, 1006) if policy.get("misfire") == "skip" else LATE) | changed

    assert problems(audit_of(tmp_path, sent, policy)) == expected


def test_a_tick_may_be_skipped_only_while_a_run_is_unfinished(tmp_path):
    sent, policy = ON_TIME | LATE, {"overlap": "skip"}
    states = dict.fromkeys((1001, 1004, 1005, 1006, 1007, 1008), "SKIPPED")

    assert problems(audit_of(tmp_path, sent, policy, states, takes_seconds=1.9)) == {}
    assert problems(audit_of(tmp_path, sent, policy, states, takes_seconds=0.1)) == {"skipped_for_nothing": 3}


def test_a_tick_may_wait_for_the_end_of_the_run_before_it_and_no_longer(tmp_path):
    sent = ON_TIME | LATE | {1001: 1.31, 1002: 2.61}

    # Those of 1000 and 1001 take 2.3 s: the next is sent when they end.
    assert problems(audit_of(tmp_path, sent, {"overlap": "queue"}, takes_seconds=2.29)).get("untimely") is None
    assert problems(audit_of(tmp_path, sent, {"overlap": "allow"}, takes_seconds=2.29))["untimely"] == 2
    assert problems(audit_of(tmp_path, sent, {"overlap": "queue"}, takes_seconds=0.1))["untimely"] == 2


def test_runs_that_must_not_overlap_are_found(tmp_path):
    assert problems(audit_of(tmp_path, ON_TIME | LATE, {"overlap": "queue"})) == {"overlapping": 3}
    assert problems(audit_of(tmp_path, ON_TIME | LATE, {"overlap": "allow"})) == {}


def test_what_a_task_was_told_is_held_against_the_list(tmp_path):
    entry = Entry(Schedule("job", "faults.tick", Interval(1.0)), DUES, 0.0)
    log = tmp_path / "ticks"
    right = f"{tick_id('job', 1_001_000)} 1001.0 job\n"
    log.write_text(f"{right}{tick_id('job', 1_001_000)} 1002.0 job\n{tick_id('job', 999_000)} 999.0 job\n")
    audit = Audit(Recorder(_no_schedules(), [entry]), Runs(tmp_path / "log"), [])

    audit.check_log([entry], log)

    assert problems(audit.found) == {"unexpected": 2}


def test_a_timetable_has_due_times_within_its_bounds_and_is_the_same_for_a_seed():
    entries = timetable(random.Random(7), 200, 1_800_000_000, 1_800_000_060)

    assert len({entry.schedule.name for entry in entries}) == 200
    for entry in entries:
        # By the way the beats go, which the list does not use.
        listed = [due / 1_000 for due in entry.dues]
        assert listed == list(entry.schedule.timing().between(1_800_000_000, 1_800_000_060, 1_000))
        assert listed
    assert entries == timetable(random.Random(7), 200, 1_800_000_000, 1_800_000_060)
