from __future__ import annotations

import pytest

from taskapp.schedules import wall_clock
from taskapp.schedules.wall_clock import WallClock


class Steady:
    def __init__(self) -> None:
        self.ms = 5_000.0

    def __call__(self) -> float:
        return self.ms


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> Steady:
    steady = Steady()
    monkeypatch.setattr(wall_clock, "steady_ms", steady)
    return steady


def test_between_two_answers_time_goes_by_the_steady_clock(steady: Steady) -> None:
    clock = WallClock()
    assert clock.now_ms() == 0.0
    assert not clock.was_set(1_000_000.0, steady.ms)

    steady.ms += 250

    assert clock.now_ms() == 1_000_250.0


def test_a_small_difference_is_followed_without_a_word(steady: Steady) -> None:
    clock = WallClock()
    clock.was_set(1_000_000.0, steady.ms)

    assert not clock.was_set(1_000_400.0, steady.ms)
    assert clock.now_ms() == 1_000_400.0


@pytest.mark.parametrize(("jump_ms", "said"), [(3_600_000, "forward by 3600.0 s"), (-90_000, "back by 90.0 s")])
def test_a_clock_that_was_set_is_told_of_and_believed(
    steady: Steady, caplog: pytest.LogCaptureFixture, jump_ms: int, said: str
) -> None:
    clock = WallClock()
    clock.was_set(1_000_000.0, steady.ms)

    assert clock.was_set(1_000_000.0 + jump_ms, steady.ms)
    assert clock.now_ms() == 1_000_000.0 + jump_ms
    assert said in caplog.text


def test_an_answer_that_waited_long_says_nothing_of_the_time(steady: Steady) -> None:
    clock = WallClock()
    clock.was_set(1_000_000.0, steady.ms)
    sent_ms = steady.ms
    steady.ms += 8_000  # this process was frozen; the answer was made before

    assert not clock.was_set(1_000_001.0, sent_ms)
    assert clock.now_ms() == 1_008_000.0
