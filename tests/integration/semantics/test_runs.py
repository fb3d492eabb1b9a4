"""A task is the same as a coroutine and as a function: what it is given, where it runs, what it returns."""

from __future__ import annotations

import json

import pytest

from taskapp.errors import InvalidPayload
from tests.integration.semantics.bodies import Order
from tests.integration.semantics.conftest import BODIES, Way
from tests.support import eventually, start_worker


@pytest.mark.parametrize("value", [None, 0, "", "ü\u2028\x00", [], {"deep": [[{}]]}, 2**80, 1.5, "x" * 300_000])
def test_what_is_returned_is_the_result(way: Way, value: object) -> None:
    result = way.s("echo", value, named=value).apply_async()

    assert result.get(timeout=20) == [[value], {"named": value}]
    assert result.state == "SUCCESS"
    assert result.date_done is not None


def test_each_runs_where_it_should(way: Way) -> None:
    pid, thread = way.run("where")

    assert (pid == way.worker.pid) is not way.has_children
    assert thread.startswith("MainThread" if way.is_async or way.has_children else "taskapp-task")


def test_self_request_tells_of_the_call(way: Way) -> None:
    result = way.s("describe", 1, b=2).apply_async(
        priority=7, headers={"tenant": "x"}, root_id="r", parent_id="p", time_limit=30, soft_time_limit=20
    )
    seen = result.get(timeout=20)

    assert seen.pop("hostname").startswith("prefork@" if way.has_children else "own@")
    assert seen == {
        "id": result.id, "args": [1], "kwargs": {"b": 2}, "retries": 0, "priority": 7, "routing_key": way.queue,
        "redelivered": False, "headers": {"tenant": "x"}, "root_id": "r", "parent_id": "p", "group": None,
        "correlation_id": result.id, "called_directly": False, "is_eager": False, "timelimit": [30, 20],
        "task": f"describe.{way.form}", "current": f"describe.{way.form}", "current_id": result.id,
    }  # fmt: skip


def test_two_hundred_at_once_each_see_their_own_request(way: Way) -> None:
    results = [way.send("describe", number) for number in range(200)]

    seen = [result.get(timeout=30) for result in results]
    assert [(one["id"], one["current_id"], one["args"]) for one in seen] == [
        (result.id, result.id, [number]) for number, result in enumerate(results)
    ]


def test_the_request_follows_a_coroutine_into_gather_task_groups_and_threads(coroutines: Way) -> None:
    results = [coroutines.send("spread") for _ in range(200)]

    for result in results:
        assert set(result.get(timeout=30)) == {result.id}


def test_models_are_checked_and_dumped(way: Way) -> None:
    assert way.run("order", Order(id=1)) == {"id": 2, "note": "Order"}
    assert way.run("order", {"id": 3}) == {"id": 4, "note": "Order"}
    assert way.run("add_typed", 2, 3) == 5
    with pytest.raises(InvalidPayload, match="x: input should be a valid integer"):
        way.send("add_typed", "two", 3)


def test_what_does_not_fit_fails_where_it_runs(way: Way) -> None:
    result = way.app.send_task(f"order.{way.form}", ({"id": "one"},), queue=way.queue)

    assert "id: input should be a valid integer" in str(way.failure(result))
    assert result.state == "FAILURE"


def test_log_lines_carry_the_task_they_were_written_in(way: Way) -> None:
    results = [way.send("speak") for _ in range(3)]
    for result in results:
        result.get(timeout=20)
        mark = f"[speak.{way.form} {result.id} queue={way.queue} attempt=1]"
        lines = [line for line in way.worker.output().splitlines() if result.id in line and "spoken" in line]
        assert ["spoken before" in line for line in lines] == [True, False]
        assert all(line.endswith(mark) for line in lines)


def test_a_thousand_coroutines_are_in_flight_at_once(coroutines: Way) -> None:
    results = coroutines.app.tasks["crowd.async"].submit_many([(1_000,)] * 1_000)

    assert {result.get(timeout=60) for result in results} == {1_000}


def test_a_client_opened_by_one_task_serves_the_next(coroutines: Way) -> None:
    seen = [coroutines.run("counter", "counted") for _ in range(3)]
    several = [coroutines.send("counter", "counted") for _ in range(20)]
    seen += [result.get(timeout=20) for result in several]

    assert sorted(count for count, _ in seen) == list(range(1, 24))
    assert len({client_id for _, client_id in seen}) == 1


def test_one_task_wakes_another_through_what_is_bound_to_the_loop(coroutines: Way) -> None:
    waiting = coroutines.send("await_bell", "bell")
    coroutines.sees("bell", ["waits"])
    coroutines.run("ring_bell")

    assert waiting.get(timeout=20) == "heard"


def test_higher_priorities_run_first(way: Way, tmp_path: object) -> None:
    """On a worker with one slot of each kind, started when all are there."""
    name = f"order-{way.form}-{way.queue}"
    results = [
        way.s("tell", priority, name).set(queue="high").apply_async(priority=priority) for priority in (0, 5, 9, 3)
    ]
    pool = ("-P", "prefork") if way.has_children else ()
    worker = start_worker(
        tmp_path, way.server.url, *pool, "-c", "1", "-Q", "high", name=name,
        TASKAPP_INCLUDE=BODIES, TASKAPP_ASYNC_SLOTS="1",
    )  # fmt: skip
    try:
        for result in results:
            result.get(timeout=20)
    finally:
        worker.close()
    assert [seen[0] for seen in way.seen(name)] == [9, 5, 3, 0]


def test_an_ignored_result_is_stored_nowhere(way: Way) -> None:
    for result in (way.send("unheard"), way.send("echo", 1, ignore_result=True)):
        # What is sent behind it on one slot's worth of work is stored.
        eventually(lambda result=result: f"{result.id}] succeeded" in way.worker.output())
        assert not way.server.client.exists(f"celery-task-meta-{result.id}")


def test_how_a_task_runs_is_stored_with_its_result(way: Way) -> None:
    result = way.s("echo", 1, b=2).apply_async()
    result.get(timeout=20)

    meta = json.loads(way.server.client.get(next(way.server.client.scan_iter(f"*celery-task-meta-{result.id}"))))
    assert (meta["name"], meta["args"], meta["kwargs"], meta["queue"], meta["retries"]) == (
        f"echo.{way.form}", [1], {"b": 2}, way.queue, 0,
    )  # fmt: skip
    assert meta["worker"].startswith("prefork@" if way.has_children else "own@")
