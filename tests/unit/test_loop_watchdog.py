"""Who holds up the event loop is named; a process that was stopped holds up nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from taskapp.engine import wakeups
from taskapp.worker.pool import loop_watchdog
from taskapp.worker.pool.loop_watchdog import LOOK_SECONDS, LoopWatchdog


class Time:
    """A clock, and the event that is waited for: each wait takes as long as ``waits`` says."""

    def __init__(self, waits: list[float], turns: frozenset[int]) -> None:
        self.now = self.turned_at = 100.0
        self._steps: Iterator[tuple[int, float]] = enumerate(waits)
        self._turns = turns

    def wait(self, _seconds: float) -> bool:
        number, seconds = next(self._steps, (-1, 0.0))
        self.now += seconds
        if number in self._turns:
            self.turned_at = self.now
        return number < 0


@pytest.mark.parametrize(
    ("waits", "turns", "warned"),
    [
        ([LOOK_SECONDS] * 20, frozenset(range(20)), False),
        ([LOOK_SECONDS, 22.0, LOOK_SECONDS, LOOK_SECONDS], frozenset({0, 2, 3}), False),
        ([LOOK_SECONDS] * 20, frozenset({0}), True),
        ([LOOK_SECONDS, 22.0, LOOK_SECONDS, LOOK_SECONDS], frozenset({0}), True),
        ([2.0] * 4, frozenset(), True),
    ],
    ids=["turns", "stopped and goes on", "blocked", "stopped and blocked", "always late"],
)
def test_a_loop_is_blocked_if_it_does_not_turn_while_others_do(
    waits: list[float], turns: frozenset[int], warned: bool, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    time = Time(waits, turns)
    monkeypatch.setattr(loop_watchdog, "monotonic", lambda: time.now)
    monkeypatch.setattr(wakeups, "monotonic", lambda: time.now)
    loop = asyncio.new_event_loop()
    watch = LoopWatchdog(loop, lambda: time.turned_at, 0.5, lambda _: "task x")
    monkeypatch.setattr(watch, "_over", time)

    with caplog.at_level(logging.WARNING, loop_watchdog.logger.name):
        watch._run()

    loop.close()
    assert ("has been blocked" in caplog.text) is warned


@pytest.mark.parametrize("is_task", [True, False])
def test_only_a_task_is_told_to_wait_otherwise_and_a_loop_that_ends_does_not_continue(
    is_task: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    time = Time([LOOK_SECONDS] * 20, frozenset())
    monkeypatch.setattr(loop_watchdog, "monotonic", lambda: time.now)
    monkeypatch.setattr(wakeups, "monotonic", lambda: time.now)
    loop = asyncio.new_event_loop()
    if is_task:
        monkeypatch.setitem(asyncio.tasks._current_tasks, loop, object())
    watch = LoopWatchdog(loop, lambda: time.turned_at, 0.5, lambda _: "x")
    monkeypatch.setattr(watch, "_over", time)

    with caplog.at_level(logging.WARNING, loop_watchdog.logger.name):
        watch._run()

    loop.close()
    assert "has been blocked" in caplog.text
    assert ("make it a plain def" in caplog.text) is is_task
    assert "continues" not in caplog.text
