"""What limits cost a claim, however much waits: counted in commands."""

from __future__ import annotations

import pytest

from taskapp.engine.limits import Concurrency, Limits, Rate
from tests.engine.bench import Bench, names
from tests.engine.test_bounds import bounded

BLOCKED = 100_000


def calls_of(bench: Bench, act: object) -> int:
    """Return how many commands ``act`` makes the server carry out."""
    bench.client.config_resetstat()
    act()  # type: ignore[operator]
    return sum(int(each["calls"]) for each in bench.client.info("commandstats").values())


def fill(bench: Bench, limits: Limits, count: int = BLOCKED, prefix: str = "") -> None:
    for start in range(0, count, 1_000):
        bench.submit(*(f"{prefix}{start + number}" for number in range(1_000)), limits=limits)


@pytest.mark.parametrize("kind", ["rate", "slots", "one key each"])
def test_very_many_blocked_tasks_cost_a_claim_nothing(bench: Bench, kind: str) -> None:
    node = bench.node()
    bench.submit("first", limits=Limits("x", (Rate("mail", "", 1, 3_600_000, 1),), (Concurrency("mail", "", 1),)))
    node.take()
    bench.submit("one", limits=Limits("x", (Rate("mail", "", 1, 3_600_000, 1),)))
    for _ in range(3):
        node.take()
    alone = calls_of(bench, node.take)

    if kind == "one key each":
        for number in range(2_000):
            limits = Limits(f"t{number}", (Rate("mail", f"t{number}", 1, 3_600_000, 1),))
            bench.submit(f"a{number}", f"b{number}", limits=limits)
        while bench.client.exists(bench.keys("fair", "q1", "0")):
            node.take(1_000)
    elif kind == "rate":
        fill(bench, Limits("y", (Rate("mail", "", 1, 3_600_000, 1),)))
    else:
        fill(bench, Limits("y", (), (Concurrency("mail", "", 1),)))
    for _ in range(10):
        node.take()
    crowded = calls_of(bench, node.take)

    assert crowded <= alone + 2


def test_one_claim_looks_at_a_bounded_number_of_lanes(bench: Bench) -> None:
    node = bench.node()
    for number in range(3_000):
        limits = Limits(f"t{number}", (Rate("mail", "", 1, 3_600_000, 1),))
        bench.submit(f"a{number}", limits=limits)

    claims = 0
    while bench.client.exists(bench.keys("fair", "q1", "0")):
        calls = calls_of(bench, lambda: node.take(1_000))
        assert calls <= 1_400
        claims += 1

    assert 50 <= claims <= 80
    blocked = int(bench.client.hget(bench.keys("limited", "q1"), "blocked:0:R\x1fmail") or 0)
    assert blocked == 2_999


def test_one_claim_takes_a_bounded_number_of_messages_and_wakes_for_the_rest(bench: Bench) -> None:
    node = bench.node()
    for number in range(400):
        bench.submit(
            f"{number}",
            limits=Limits(f"t{number:03}", (Rate("mail", "", 1e6, 1, 1e6),), (Concurrency("mail", "", 999),)),
        )

    for _ in range(4):
        bench.client.delete(bench.keys("wake", "q1"))
        bench.client.config_resetstat()
        claim = node.ask(1_000)
        assert claim is not None
        assert len(claim.messages) == 100
        calls = sum(int(each["calls"]) for each in bench.client.info("commandstats").values())
        assert calls < 3_000
        assert bench.client.llen(bench.keys("wake", "q1")) == (len(node.held) < 400)


def test_a_queue_with_limits_is_emptied_in_steps(bench: Bench) -> None:
    fill(bench, Limits("x", (Rate("mail", "", 1, 3_600_000, 1),)), 3_000)
    gone, at, calls = 0, b"0", 0
    while at != b"0" or not calls:
        with bounded(bench):
            some, at = bench.link.run("empty", bench.options.prefix, 0, "q1", at)
        gone, calls = gone + some, calls + 1

    assert gone == 3_000
    assert calls > 20


def test_changed_numbers_open_gates_page_by_page(bench: Bench) -> None:
    from taskapp.engine.limit_numbers import LimitsAdmin

    node = bench.node()
    for number in range(1_000):
        limits = Limits("", (Rate("mail", f"t{number}", 1, 3_600_000, 1),))
        bench.submit(f"a{number}", f"b{number}", limits=limits)
    while bench.client.exists(bench.keys("fair", "q1", "0")):
        node.take(1_000)
    admin = LimitsAdmin(bench.link, bench.options.prefix)
    assert len(list(admin.blocked("q1"))) == 1_000

    with bounded(bench, scripts=6):
        admin.set_limit("mail", {"limit": 1_000_000, "burst": 1_000_000_000})

    taken: list[str] = []
    for _ in range(60):
        taken += names(node.take(1_000))
    assert len(taken) == 1_000


def test_a_key_costs_less_than_half_a_kilobyte_and_idle_ones_vanish(bench: Bench) -> None:
    node = bench.node()
    for number in range(2_000):
        bench.submit(f"{number}", limits=Limits("", (Rate("mail", f"tenant {number}", 1, 60_000, 1),)))
    taken: list[str] = []
    while some := node.take(1_000):
        taken += names(some)
        for each in some:
            node.settle(each.tag)
        node.done()
    assert len(taken) == 2_000
    node.take()

    keys = bench.client.keys("*limits:rate*")
    assert len(keys) == 2_000
    assert max(bench.client.memory_usage(key) for key in keys[:50]) < 256
    assert all(0 < bench.client.pttl(key) <= 60_000 for key in keys[:50])
    left = [key for key in bench.client.keys("*") if b"lane" in key or b"runnable" in key or b"fair" in key]
    assert left == []
