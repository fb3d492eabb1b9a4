from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from taskapp.beat.scheduler import Scheduler


class Leader:
    """Is hit by a signal in the midst of a turn, as by Celery's handler of SIGTERM."""

    is_in_touch = True

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.is_turning = False
        self.resigned: list[bool] = []

    def turn(self, _: float) -> None:
        self.is_turning = True
        self._scheduler.close()
        self.is_turning = False
        raise SystemExit

    def resign(self) -> None:
        self.resigned.append(self.is_turning)


def test_a_beat_that_is_stopped_in_the_midst_of_a_turn_resigns_after_it() -> None:
    scheduler: Any = Scheduler.__new__(Scheduler)
    scheduler.max_interval, scheduler._held = 1.0, ExitStack()
    scheduler._leader = leader = Leader(scheduler)

    with pytest.raises(SystemExit):
        scheduler.tick()
    scheduler.close()

    assert leader.resigned == [False]
