"""Adds, pauses, resumes and runs a schedule while beat and the main job run, and checks the effects."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

from taskapp.background import start_thread
from taskapp.celery import app
from taskapp.demo.check import Check
from taskapp.schedules import Interval, Schedule
from taskapp.schedules.record import Tick
from taskapp.schedules.store import Schedules
from taskapp.tasks import add

NAME = "demo"
PERIOD_SECONDS = 0.5
LATE_SECONDS = 1.0
QUIET_SECONDS = 1.5
TICKS = 4
EACH_WITHIN_SECONDS = 30.0
BY_HAND = (40, 2)

Value = TypeVar("Value")


class Timed:
    """Runs its steps in a separate thread, in parallel with the main job."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._checks: list[Check] = []

    def start(self) -> None:
        """Start the steps; ``checks`` waits for them."""
        self._thread = start_thread(self._run, name="demo-schedules")

    def checks(self) -> list[Check]:
        """Wait for all steps and return their checks."""
        if self._thread is not None:
            self._thread.join()
        return self._checks

    def _run(self) -> None:
        try:
            with app.schedules() as schedules:
                for step in (_fires_on_time, _is_silent_while_paused, _goes_on, _fires_by_hand, _is_gone):
                    self._checks.append(step(schedules))
        except Exception as error:  # noqa: BLE001 - any error is the observation
            self._checks.append(Check("schedules changed while beat ran", passed=False, seen=repr(error)))


def _fires_on_time(schedules: Schedules) -> Check:
    """Add a schedule and let it run while the nodes are busy."""
    when = Interval(PERIOD_SECONDS)
    schedules.add(Schedule(NAME, add.name, when, args=(1, 2), queue="critical", priority=9))
    ticks = _soon(lambda: _ended(schedules, TICKS))
    latest = max((tick.sent_at - tick.due_at for tick in ticks), default=0.0)
    dues = [tick.due_at for tick in reversed(ticks)]
    follow = all(when.after(one) == next_one for one, next_one in pairwise(dues))
    passed = len(ticks) >= TICKS and latest < LATE_SECONDS and follow
    seen = f"{len(ticks)} ticks every {PERIOD_SECONDS:g} s, at most {latest * 1_000:.0f} ms late"
    return Check("a schedule added while beat was running ran on time", passed, seen)


def _is_silent_while_paused(schedules: Schedules) -> Check:
    schedules.pause(NAME)
    before = schedules.get(NAME).runs
    time.sleep(QUIET_SECONDS)
    ticks = schedules.get(NAME).runs - before
    return Check("no ticks while it was paused", not ticks, f"{ticks} ticks in {QUIET_SECONDS:g} s")


def _goes_on(schedules: Schedules) -> Check:
    before, resumed_at = schedules.get(NAME).runs, time.time()
    schedules.resume(NAME)
    runs = _soon(lambda: schedules.get(NAME).runs - before)
    [last, *_] = schedules.ticks(NAME)
    seconds = last.sent_at - resumed_at
    return Check("ticks continued after resume", runs >= 1 and last.due_at > resumed_at, f"after {seconds:.1f} s")


def _fires_by_hand(schedules: Schedules) -> Check:
    schedules.edit(NAME, args=BY_HAND, when=Interval(3_600.0))
    answer = app.AsyncResult(schedules.run_now(NAME)).get(timeout=EACH_WITHIN_SECONDS)
    return Check(
        "edited and run by hand, it used the new arguments", answer == sum(BY_HAND), f"{BY_HAND} gave {answer}"
    )


def _is_gone(schedules: Schedules) -> Check:
    schedules.remove(NAME)
    names = [known.schedule.name for known in schedules.all()]
    return Check("removed, it was gone", NAME not in names, f"left: {', '.join(names)}")


def _ended(schedules: Schedules, count: int) -> list[Tick]:
    """Return the schedule's ticks if ``count`` of their runs succeeded, else an empty list."""
    ticks = schedules.ticks(NAME)
    return ticks if sum(tick.state == "SUCCESS" for tick in ticks) >= count else []


def _soon(condition: Callable[[], Value]) -> Value:
    deadline = time.monotonic() + EACH_WITHIN_SECONDS
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value
