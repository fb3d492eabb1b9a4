"""What the terminal shows of two looks."""

from __future__ import annotations

import json
from collections import Counter
from io import StringIO

import pytest
from rich.console import Console

from taskapp.engine.counters import Spread, Totals
from taskapp.engine.snapshot import LimitRef, NodeSnapshot, Parked, QueueSnapshot, Snapshot, Waiting
from taskapp.monitor.rates import Look, QueueRates, queue_rates, rates_json, type_rates
from taskapp.monitor.top import UNBOUNDED, age, screen


def look(at: float, tasks: dict[tuple[str, str, str], int], runs: dict[str, Spread] | None = None) -> Look:
    return Look(at, Snapshot(1_800_000_000.0, [], [], {}), Totals(tasks, runs or {}))


def test_rates_are_of_what_happened_between_two_looks() -> None:
    before = look(10.0, {("completed", "a", "q"): 100, ("failed", "b", "q"): 7})
    now = look(12.0, {("completed", "a", "q"): 150, ("failed", "b", "q"): 9, ("retried", "b", "p"): 4})

    failing, well = type_rates(before, now)
    assert (failing.task, failing.failed, failing.retried, failing.failing_share) == ("b", 1.0, 2.0, 1.0)
    assert (well.task, well.completed, well.failing_share) == ("a", 25.0, 0.0)
    assert queue_rates(before, now)["q"] == QueueRates(0.0, 25.0, 1.0)


def test_a_server_that_was_emptied_gives_no_negative_rates() -> None:
    assert type_rates(look(1.0, {("completed", "a", "q"): 100}), look(2.0, {("completed", "a", "q"): 3})) == []


def test_how_long_runs_took_is_of_the_last_ones() -> None:
    before = look(1.0, {}, {"a": Spread(Counter({"5.0": 1_000}), 4_000.0)})
    runs = Spread(Counter({"5.0": 1_000, "0.01": 90, "0.1": 8, "+Inf": 2}), 4_000.0 + 10.0)
    [rates] = type_rates(before, look(2.0, {("completed", "a", "q"): 100}, {"a": runs}))

    assert rates.mean_seconds == pytest.approx(0.1)
    assert rates.slow_seconds == 0.1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "·"), (0.04, "0.0 s"), (9.9, "9.9 s"), (12.3, "12 s"), (119, "119 s"), (120, "2 min"),
        (7_199, "120 min"), (7_200, "2 h"), (172_799, "48 h"), (172_800, "2 d"), (1e9, "11,574 d"),
    ],
)  # fmt: skip
def test_spans_of_time_are_short(seconds: float | None, text: str) -> None:
    assert age(seconds) == text


def drawn(now: Look, before: Look | None = None, width: int = 120) -> str:
    console = Console(width=width, force_terminal=False, record=True, file=StringIO())
    console.print(screen(before, now))
    return console.export_text()


def test_the_screen_says_what_stands_still_and_what_to_do() -> None:
    parked = {"shop.new": Parked(4, 60.0)}
    blocked = {LimitRef("rate", "shop.mail"): 6, LimitRef("slots", "shop.mail"): 1}
    queue = QueueSnapshot("high", {0: Waiting(1_234, 90.0)}, 5, 3.0, parked, {"failed": 2}, blocked_by=blocked)
    text = drawn(Look(1.0, Snapshot(1_800_000_000.0, [queue], [], {}), Totals()))

    assert "08:00:00 UTC   0 nodes running   1,234 waiting" in text
    assert " ".join(next(line for line in text.splitlines() if line.startswith("high")).split()) == (
        "high 1,234 90 s 5 7 4 2 0 · ·"
    )
    assert "no nodes; start one with: celery -A taskapp worker" in text
    assert "rates appear with the second refresh" in text


def test_a_name_cannot_move_the_cursor() -> None:
    node = NodeSnapshot("e", "\x1b[2Jevil@a", "lost", {"async": 10}, {"async": 3}, 3, ("q",), 0.5, 1.0, -1.0)
    text = drawn(Look(1.0, Snapshot(100.0, [], [node], {}), Totals()))

    assert "\x1b" not in text
    assert "3/10 (async 3)" in text
    assert "lost" in text


@pytest.mark.parametrize("width", [40, 60, 80, 120, UNBOUNDED])
def test_a_narrow_screen_has_fewer_columns_and_cuts_no_number(width: int) -> None:
    numbers = ("1,234,567", "7,654,321", "3,333,333", "1,111,111")
    queue = QueueSnapshot(
        "high", {0: Waiting(1_234_567, 90.0)}, 7_654_321, 3.0, {"a": Parked(1_111_111, 1.0)}, {"failed": 2_222_222},
        blocked_by={LimitRef("rate", "a"): 3_333_333},
    )  # fmt: skip
    node = NodeSnapshot("e", "n" * 70 + "@host", "running", {"a": 1}, {"a": 1}, 1, ("high",) * 9, 0.5, 1.0, 9.0)
    text = drawn(Look(1.0, Snapshot(100.0, [queue], [node], {}), Totals()), width=width)

    line = next(line for line in text.splitlines() if line.startswith("high"))
    shown = line.split()[1:2] + line.split()[4:7]
    assert [*numbers][: len(shown)] == shown
    assert "…" not in line
    assert width < 80 or "n" * 70 + "@host" in text or width < UNBOUNDED


def test_json_has_all_that_the_screen_shows() -> None:
    blocked = {LimitRef("rate", "a"): 6}
    queue = QueueSnapshot(
        "high", {0: Waiting(3, 90.0)}, 5, 3.0, {"a": Parked(4, 60.0)}, {"failed": 2}, blocked_by=blocked
    )
    node = NodeSnapshot("e", "w@h", "running", {"a": 1}, {"a": 1}, 1, ("high",), 0.5, 1.0, 9.0)
    snapshot = Snapshot(100.0, [queue], [node], {})

    shown = rates_json(
        Look(1.0, snapshot, Totals({}, {})), Look(2.0, snapshot, Totals({("failed", "t", "high"): 2}, {}))
    )

    json.dumps(shown, allow_nan=False)
    [high] = shown["queues"]
    assert (high["ready"], high["delayed"], high["parked"], high["dead"], high["failed"]) == (3, 5, 4, 2, 2.0)
    assert high["blocked"] == 6
    assert shown["nodes"][0]["queues"] == ["high"]
    assert shown["task_types"][0]["task"] == "t"
