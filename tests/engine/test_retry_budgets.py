"""Retry budgets of task types, counted in Redis for all nodes."""

from __future__ import annotations

import pytest

from taskapp.engine.limit_numbers import LimitsAdmin
from taskapp.engine.retry_budgets import LEAST_RETRIES, RetryBudget
from taskapp.engine.settlement import BudgetedRun, Settlement
from tests.engine.bench import Bench

TASK = "shop.mail"
MINUTE_MS = 60_000


@pytest.fixture
def admin(bench: Bench) -> LimitsAdmin:
    return LimitsAdmin(bench.link, bench.options.prefix)


def taken(admin: LimitsAdmin, budget: RetryBudget, most: int = 50) -> int:
    return sum(admin.take_retry(TASK, budget) for _ in range(most))


def run(bench: Bench, number: int) -> None:
    node = bench.node()
    for start in range(0, number, 50):
        some = [f"{start + at}" for at in range(min(50, number - start))]
        bench.push(*some)
        for claimed in node.take(50):
            settlement = Settlement()
            settlement.budgeted = BudgetedRun(TASK, MINUTE_MS)
            node.settle(claimed.tag, settlement)
        node.done()


def test_a_number_in_a_period_is_never_exceeded(bench: Bench, admin: LimitsAdmin) -> None:
    budget = RetryBudget(MINUTE_MS, most=12)
    allowed = []
    for _ in range(12):  # every 5 s for a minute
        allowed.append(taken(admin, budget, 2))
        bench.let_time_pass(5)

    assert sum(allowed) == 12
    bench.let_time_pass(66)
    assert taken(admin, budget) == 12
    bench.let_time_pass(50)
    assert taken(admin, budget) == 0


def test_a_share_counts_the_runs_of_the_last_minute(bench: Bench, admin: LimitsAdmin) -> None:
    budget = RetryBudget(MINUTE_MS, share=0.1)
    run(bench, 200)

    assert taken(admin, budget) == 20
    run(bench, 100)
    assert taken(admin, budget) == 10
    bench.let_time_pass(66)
    assert taken(admin, budget) == LEAST_RETRIES


def test_types_have_budgets_of_their_own(admin: LimitsAdmin) -> None:
    budget = RetryBudget(MINUTE_MS, most=1)

    assert [admin.take_retry(task, budget) for task in ("a", "b", "a", "b")] == [True, True, False, False]


def test_the_key_of_a_budget_stays_small_and_vanishes(bench: Bench, admin: LimitsAdmin) -> None:
    budget, key = RetryBudget(MINUTE_MS, share=0.5), bench.keys("retry_budget", TASK)
    for _ in range(40):
        run(bench, 1)
        admin.take_retry(TASK, budget)
        bench.let_time_pass(5)

    assert bench.client.hlen(key) <= 26
    assert 0 < bench.client.pttl(key) <= 2 * MINUTE_MS


def test_a_clock_that_was_set_back_or_another_period_leaves_no_old_numbers(bench: Bench, admin: LimitsAdmin) -> None:
    assert taken(admin, RetryBudget(MINUTE_MS, most=5)) == 5
    assert taken(admin, RetryBudget(3_600_000, most=5)) == 5
    bench.client.hset(bench.keys("retry_budget", TASK), "nonsense", "x")

    assert taken(admin, RetryBudget(1_000, most=5)) == 5
    assert bench.client.hget(bench.keys("retry_budget", TASK), "nonsense") is None
