"""Limits that task types declare, on a real server with real nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chord, group

from taskapp.engine.limit_numbers import LimitsAdmin
from taskapp.errors import DuplicateTask, SubmitInterrupted
from taskapp.errors.limits import BadLimit
from taskapp.outbox.capture import capture
from taskapp.outbox.pushing import RowPusher
from tests.integration import limited
from tests.support import Process, RedisServer, eventually, start_worker

pytestmark = pytest.mark.usefixtures("app")

StartWorker = Callable[..., Process]


@pytest.fixture
def node(worker: StartWorker) -> Callable[[], Process]:
    return lambda: worker("-c", "8", TASKAPP_INCLUDE="tests.integration.limited")


# --- unique -----------------------------------------------------------------------------------------


def test_a_duplicate_gets_the_result_of_the_first(node: Any) -> None:
    first = limited.pay.delay(1, amount=5)
    again = [
        limited.pay.delay(order=1, amount=6),
        limited.pay.apply_async((1,), {"amount": 7}, countdown=60),
        asyncio.run(limited.pay.adelay(1, 8)),
        limited.pay.s(1, 9).apply_async(),
    ]
    other = limited.pay.delay(2, 10)

    assert {one.id for one in again} == {first.id}
    assert other.id != first.id
    node()
    assert [one.get(timeout=30) for one in (first, *again, other)] == [5, 5, 5, 5, 5, 10]
    assert limited.pay.delay(1, 11).get(timeout=30) == 11


def test_duplicates_among_many_get_it_too(node: Any) -> None:
    first = limited.pay.delay(1, 5)

    many = limited.pay.submit_many([(1, 6), (2, 7), (2, 8), (3, 9)])
    awaited = asyncio.run(limited.pay.asubmit_many([(3, 1), (4, 2)]))
    grouped = group(limited.pay.s(1, 3), limited.pay.s(5, 4), limited.pay.s(5, 5).set(priority=3))()

    assert many[0].id == first.id
    assert many[1].id == many[2].id
    assert awaited[0].id == many[3].id
    assert grouped.results[0].id == first.id
    assert grouped.results[1].id == grouped.results[2].id
    node()
    assert [one.get(timeout=30) for one in (*many, *awaited)] == [5, 7, 7, 9, 9, 2]
    assert grouped.get(timeout=30) == [5, 4, 4]
    assert asyncio.run(grouped.aget(timeout=30)) == [5, 4, 4]


def test_a_refused_duplicate_names_the_task_that_has_its_key() -> None:
    first = limited.strict.delay(1, amount=0)

    for submit in (
        lambda: limited.strict.delay(1), lambda: limited.strict.s(order=1).apply_async(),
        lambda: asyncio.run(limited.strict.adelay(1, 0)),
    ):  # fmt: skip
        with pytest.raises(DuplicateTask, match=first.id) as caught:
            submit()
        assert [*caught.value.existing.values()] == [first.id]


@pytest.mark.parametrize("way", ["many", "coroutine"])
def test_of_many_only_the_duplicates_are_refused(way: str) -> None:
    first = limited.strict.delay(1)
    calls = [(2,), (1,), (3,), (2,)]

    def submit() -> Any:
        return limited.strict.submit_many(calls) if way == "many" else asyncio.run(limited.strict.asubmit_many(calls))

    with pytest.raises(SubmitInterrupted) as caught:
        submit()

    assert caught.value.not_queued == [(1,), (2,)]
    assert len(caught.value.queued) == 2
    assert isinstance(caught.value.__cause__, DuplicateTask)
    assert first.id in caught.value.__cause__.existing.values()


def test_a_group_reports_its_refused_members_and_queues_the_others(node: Any) -> None:
    first = limited.strict.delay(1)

    with pytest.raises(DuplicateTask) as caught:
        group(limited.strict.s(1), limited.strict.s(2, 7))()

    assert [*caught.value.existing.values()] == [first.id]
    holder = limited.strict.apply_async((2, 7), on_duplicate="existing")
    node()
    assert holder.get(timeout=30) == 7


def test_a_unique_task_cannot_be_a_member_of_a_chord() -> None:
    with pytest.raises(BadLimit, match="its chord would wait for a duplicate forever; use unique=False"):
        chord([limited.pay.s(1), limited.pay.s(2)])(limited.fair.si("x"))
    chord([limited.pay.s(1).set(unique=False), limited.fair.s("x")])(limited.fair.si("x"))


def test_the_arguments_of_a_waiting_task_are_replaced(node: Any) -> None:
    first = limited.replaced.delay(1, 5)
    second = limited.replaced.delay(1, 6)

    assert second.id == first.id
    node()
    assert first.get(timeout=30) == 6


def test_a_debounced_task_runs_once_with_the_latest_arguments(node: Any) -> None:
    node()
    results = [limited.debounced.delay(1, amount) for amount in range(5)]

    assert {one.get(timeout=30) for one in results} == {4}


def test_a_retry_is_no_duplicate_of_itself(node: Any) -> None:
    result = limited.stubborn.delay(1)
    node()

    assert result.get(timeout=30) == 2
    assert limited.stubborn.delay(1).get(timeout=30) == 2


def test_a_call_decides_about_its_key(node: Any) -> None:
    first = limited.fair.apply_async(("a",), unique_key="nightly")
    second = limited.fair.apply_async(("b",), unique_key="nightly")
    third = limited.pay.delay(1)
    fourth = limited.pay.apply_async((1,), unique=False)

    assert first.id == second.id
    assert third.id != fourth.id


def test_a_duplicate_in_the_outbox_is_not_queued_again(app: Celery, node: Any) -> None:
    first = limited.pay.delay(1, 5)
    rows = capture(limited.pay, (1, 6), {}, {}, app).rows

    assert RowPusher(app).push(rows).pushed
    node()
    assert first.get(timeout=30) == 5


# --- rates, concurrency -----------------------------------------------------------------------------


def test_a_rate_holds_for_two_nodes_together_and_each_key(node: Any, worker: StartWorker) -> None:
    results = {tenant: [limited.rated.delay(tenant) for _ in range(21)] for tenant in ("a", "b")}
    node()
    worker("-c", "8", name="second", TASKAPP_INCLUDE="tests.integration.limited")

    for several in results.values():
        starts = sorted(one.get(timeout=60) for one in several)
        # Starts are noted a moment after the claim; on each node its own bucket would allow twice as many.
        assert starts[-1] - starts[0] >= 20 / 20 - 0.2


def test_a_burst_waits_for_no_second_limit_on_the_node(node: Any) -> None:
    node()

    assert [one.get(timeout=30) for one in [limited.bursting.delay() for _ in range(10)]] == [None] * 10


@pytest.mark.parametrize("asks_a_node", [True, False])
def test_a_rate_that_is_changed_holds_everywhere_and_later(app: Any, node: Any, asks_a_node: bool) -> None:
    nodes = ["w1@nowhere"] if asks_a_node else None
    app.control.rate_limit("tests.integration.limited.rated", "1/h", destination=nodes)
    results = [limited.rated.delay("a") for _ in range(3)]
    node()
    assert eventually(lambda: results[0].ready())

    assert limited.fair.delay("x").get(timeout=30) == ["x", 0]
    assert [one.ready() for one in results] == [True, False, False]
    app.control.rate_limit("tests.integration.limited.rated", "2000/m", reply=True)
    assert all(one.get(timeout=30) for one in results)
    app.control.rate_limit("tests.integration.limited.rated", 0, reply=True)
    assert len([one.get(timeout=30) for one in limited.rated.submit_many([("b",)] * 50)]) == 50


def test_two_levels_of_concurrency_hold(node: Any, worker: StartWorker) -> None:
    node()
    worker("-c", "8", name="second", TASKAPP_INCLUDE="tests.integration.limited")
    results = [limited.crowded.delay(tenant, 0.2) for tenant in "abcd" for _ in range(3)]

    spans = [(tenant, one.get(timeout=60)) for tenant, one in zip("aaabbbcccddd", results, strict=True)]
    for tenant in "abcd":
        mine = sorted(span for each, span in spans if each == tenant)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(mine))
    for begin in (span[0] for _, span in spans):
        assert sum(other <= begin < end for _, (other, end) in spans) <= 3


def test_a_running_task_is_cancelled_for_the_next_one(node: Any) -> None:
    node()
    first = limited.latest.delay(0)
    eventually(lambda: first.state == "STARTED")

    assert limited.latest.delay(1).get(timeout=30) == 1
    assert eventually(lambda: first.state == "REVOKED")


@pytest.mark.parametrize("kind", [limited.tidy, limited.busy], ids=["coroutine", "function"])
def test_a_cancelled_task_has_its_slot_until_it_has_ended(
    node: Any, worker: StartWorker, tmp_path: Path, kind: Any
) -> None:
    node()
    worker("-c", "8", name="second", TASKAPP_INCLUDE="tests.integration.limited")
    log = tmp_path / "runs"
    log.touch()
    cancelled = kind.delay(str(log), 1.5)
    eventually(log.read_text)

    kind.delay(str(log), 0).get(timeout=30)

    assert log.read_text().split() == ["begin", "end", "begin", "end"]
    assert eventually(lambda: cancelled.state == "REVOKED")


def test_nodes_declare_their_numbers(app: Any, node: Any, redis_server: RedisServer) -> None:
    node()
    with app.connection_for_write() as connection:
        admin = LimitsAdmin(connection.default_channel.process.producer.link, app.settings.key_prefix)
        known = eventually(lambda: admin.read_limits())

    assert known["tests.integration.limited.rated"].declared == {"limit": 20, "period_ms": 1_000, "burst": 1}
    assert known["tests.integration.limited.crowded"].declared == {"most": 3}
    assert known["tests.integration.limited.crowded/{tenant}"].declared == {"most": 1}


# --- RabbitMQ ---------------------------------------------------------------------------------------


def test_a_node_on_rabbitmq_refuses_limits_by_name(tmp_path: Path, rabbitmq_url: str) -> None:
    process = start_worker(tmp_path, rabbitmq_url, wait=False, TASKAPP_INCLUDE="tests.integration.limited")

    try:
        assert process.wait(60) == 78
    finally:
        process.kill()
    assert "cannot have the option" in process.output()
    assert "it needs Redis as the broker" in process.output()
