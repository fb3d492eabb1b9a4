"""The engine's time: never ahead, and unmoved when somebody sets the server's clock."""

from __future__ import annotations

import pytest

from taskapp.engine import clock as clock_module
from taskapp.engine.clock import Clock, Reading
from tests.engine.bench import Bench, names
from tests.support import eventually

HOUR_MS = 3_600_000


class Here:
    """This machine's steady clock, moved by hand, and a server whose clock may be set."""

    def __init__(self) -> None:
        self.steady_ms = 50_000.0
        self.set_by_ms = 0
        self.offset_ms = 0

    def ask(self, clock: Clock, there_ms: float = 1.0, back_ms: float = 1.0) -> int | None:
        """Ask the server for the time; the question and the answer take so long."""
        sent_ms = self.steady_ms
        wall_ms = int(self.steady_ms + there_ms) + 1_000_000 + self.set_by_ms
        self.steady_ms += there_ms + back_ms
        corrected = clock.observe(Reading(wall_ms + self.offset_ms, wall_ms, self.offset_ms), sent_ms, self.steady_ms)
        if corrected is not None:
            self.offset_ms = corrected
        return corrected

    @property
    def true_ms(self) -> float:
        """The engine's time if nobody had ever set a clock."""
        return self.steady_ms + 1_000_000


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    here = Here()
    monkeypatch.setattr(clock_module, "steady_ms", lambda: here.steady_ms)
    return here


def test_nothing_is_predicted_before_the_first_answer() -> None:
    assert Clock().predicted_ms() == 0


@pytest.mark.parametrize(("there_ms", "back_ms"), [(1, 1), (0, 900), (900, 0), (30_000, 30_000)])
def test_a_prediction_is_never_ahead_of_the_server(here: Here, there_ms: float, back_ms: float) -> None:
    clock = Clock()

    here.ask(clock, there_ms, back_ms)
    here.steady_ms += 5_000

    assert here.true_ms - back_ms - 1 <= clock.predicted_ms() <= here.true_ms


def test_a_slow_answer_does_not_spoil_what_is_known_already(here: Here) -> None:
    clock = Clock()
    here.ask(clock)

    here.ask(clock, 1, 20_000)

    assert here.true_ms - clock.predicted_ms() < 5


def test_a_slow_server_is_not_taken_for_a_clock_that_was_set(here: Here) -> None:
    clock = Clock()
    here.ask(clock, 1, 5_000)

    assert [here.ask(clock, there_ms, 1) for there_ms in (1, 60_000, 1, 10)] == [None] * 4


@pytest.mark.parametrize("jump_ms", [2_000, HOUR_MS, 30 * 24 * HOUR_MS])
def test_a_clock_that_was_set_forward_is_undone_to_the_uncertainty_of_an_answer(here: Here, jump_ms: int) -> None:
    clock = Clock()
    here.ask(clock)
    here.steady_ms += 500
    here.set_by_ms = jump_ms

    corrected = here.ask(clock)

    assert corrected == pytest.approx(-jump_ms, abs=5)
    assert here.ask(clock) is None
    assert clock.predicted_ms() == pytest.approx(here.true_ms, abs=8)


def test_a_second_is_not_worth_a_correction(here: Here) -> None:
    clock = Clock()
    here.ask(clock)
    here.set_by_ms = 900

    assert here.ask(clock) is None


def test_a_correction_that_was_lost_on_its_way_is_asked_for_again(here: Here) -> None:
    clock = Clock()
    here.ask(clock)
    here.set_by_ms = HOUR_MS
    first = here.ask(clock)
    here.offset_ms = 0

    assert here.ask(clock) == pytest.approx(first, abs=5)
    assert here.ask(clock) is None


def test_whoever_is_overruled_by_the_others_follows_them(here: Here) -> None:
    clock = Clock()
    here.ask(clock)
    here.set_by_ms = HOUR_MS
    assert here.ask(clock) is not None
    here.offset_ms = -1_000_000  # what the others hold for right

    assert here.ask(clock) is None
    assert clock.predicted_ms() == pytest.approx(here.true_ms + HOUR_MS - 1_000_000, abs=5)


def test_a_clock_that_is_set_forward_twice_is_undone_twice(here: Here) -> None:
    clock = Clock()
    here.ask(clock)
    for _ in range(2):
        here.set_by_ms += HOUR_MS
        assert here.ask(clock) is not None
        assert here.ask(clock) is None

    assert clock.predicted_ms() == pytest.approx(here.true_ms, abs=10)


# --- on a real server ---------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, -1, 24 * 365, -24 * 365])
def test_setting_the_servers_clock_makes_nothing_due_and_nothing_late(bench: Bench, hours: int) -> None:
    node = bench.node()
    node.take()
    bench.push("soon", due_ms=bench.now_ms() + 400)

    bench.set_the_servers_clock(hours * 3_600)

    assert node.take() == []
    asked = clock_module.steady_ms()
    assert names(eventually(node.take)) == ["soon"]
    assert clock_module.steady_ms() - asked < 1_000


@pytest.mark.parametrize("hours", [1, -1])
def test_setting_the_servers_clock_ends_no_lease_and_keeps_none_for_ever(bench: Bench, hours: int) -> None:
    bench.push("held")
    living, dying = bench.node(), bench.node()
    [held] = dying.take()
    for node in (living, dying):
        node.heartbeat.beat()

    bench.set_the_servers_clock(hours * 3_600)

    living.heartbeat.beat()
    dying.heartbeat.beat()
    assert not living.heartbeat.lost
    assert not dying.heartbeat.lost
    assert held.tag.encode() in bench.client.hgetall(bench.keys("leased", dying.epoch))
    ends_ms = bench.client.zscore(bench.keys("leases"), dying.epoch)
    assert ends_ms - living.clock.now_ms() == pytest.approx(bench.options.lease_ms, abs=1_500)


def test_a_node_that_starts_after_the_clock_was_set_back_agrees_with_the_others(bench: Bench) -> None:
    old = bench.node()
    old.take()
    before_ms = old.clock.predicted_ms()
    bench.set_the_servers_clock(-3_600)
    old.take()

    new = bench.node()
    new.take()

    assert new.clock.predicted_ms() == pytest.approx(old.clock.predicted_ms(), abs=1_100)
    assert new.clock.predicted_ms() >= before_ms - 1_100
