from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from taskapp.schedules.misfire import COUNTED_MOST, due_now
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.times import Interval

DUE_MS = 1_000_000_000


def schedule(seconds: float = 10.0, **more: Any) -> Schedule:
    return Schedule("job", "shop.mail", Interval(seconds), **more)


def test_usually_one_is_due_and_nothing_is_dropped() -> None:
    job = schedule()
    assert due_now(job, job.timing(), DUE_MS, DUE_MS + 3) == ([DUE_MS], 0, DUE_MS + 10_000)


@pytest.mark.parametrize(
    ("policy", "sent", "dropped"),
    [
        ({"misfire": "once"}, [40_000], 4),
        ({"misfire": "catch_up", "catch_up_most": 3}, [20_000, 30_000, 40_000], 2),
        ({"misfire": "catch_up", "catch_up_most": 100}, [0, 10_000, 20_000, 30_000, 40_000], 0),
        ({"misfire": "skip", "grace_seconds": 5.0}, [40_000], 4),
        ({"misfire": "skip", "grace_seconds": 1.0}, [], 5),
    ],
)
def test_of_several_the_policy_says_which(policy: dict[str, Any], sent: list[int], dropped: int) -> None:
    job = schedule(**policy)
    found = due_now(job, job.timing(), DUE_MS, DUE_MS + 43_000)
    assert found == ([DUE_MS + each for each in sent], dropped, DUE_MS + 50_000)


def test_with_jitter_what_is_caught_up_is_no_earlier_than_its_time_and_grace_begins_with_it() -> None:
    job = schedule(jitter_seconds=9.0, misfire="catch_up")
    timing = job.timing()
    for now_ms in range(DUE_MS, DUE_MS + 60_000, 500):
        found = due_now(job, timing, DUE_MS, now_ms)
        assert all(job.to_send_ms(timing, due) <= now_ms for due in found.sent)
        assert found.next_ms is not None
        assert job.to_send_ms(timing, found.next_ms) > now_ms
    sends = [job.to_send_ms(timing, DUE_MS + 10_000 * number) for number in range(200)]
    assert all(earlier < later for earlier, later in pairwise(sends))
    patient = schedule(jitter_seconds=9.0, misfire="skip", grace_seconds=0.001)
    at_ms = patient.to_send_ms(timing, DUE_MS)
    assert due_now(patient, timing, DUE_MS, at_ms).sent == [DUE_MS]


def test_a_long_absence_is_not_walked_through_second_by_second() -> None:
    job = schedule(seconds=1.0)
    now_ms = DUE_MS + 30 * 86_400_000
    found = due_now(job, job.timing(), DUE_MS, now_ms)
    assert (found.sent, found.next_ms, found.dropped) == ([now_ms], now_ms + 1_000, COUNTED_MOST)
