"""Retry policies with real nodes on a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskapp.errors.retries import RetryBudgetUsedUp
from taskapp.monitor.task_state import State, task_state
from tests.integration import retrying
from tests.support import Process, RedisServer, clean_environment, eventually, run_python, start_worker

pytestmark = pytest.mark.usefixtures("app")
StartWorker = Callable[..., Process]
MODULE = "tests.integration.retrying"


@pytest.fixture
def nodes(worker: StartWorker) -> list[Process]:
    return [worker("-c", "4", name=name, TASKAPP_INCLUDE=MODULE, TASKAPP_HISTORY="true") for name in ("one", "two")]


def shown(server: RedisServer, task_id: str, *options: str) -> str:
    environment = clean_environment(TASKAPP_BROKER_URL=server.url)
    return run_python("-m", "taskapp", "task", "show", task_id, *options, env=environment).stdout


def becomes(task_id: str, state: State) -> Any:
    eventually(lambda: task_state(task_id).state is state)
    return task_state(task_id)


def test_each_error_is_retried_as_often_as_it_says_and_the_attempts_are_kept(
    app: Any, nodes: list[Process], redis_server: RedisServer
) -> None:
    for task in (retrying.fails, retrying.fails_in_a_coroutine, retrying.fails_in_a_child):
        results = {kind: task.delay(kind) for kind in retrying.KINDS}
        with pytest.raises(TimeoutError):
            results["timeout"].get(timeout=30)
        with pytest.raises(OSError, match="because of os"):
            results["os"].get(timeout=30)

        for kind, retries in (("timeout", 3), ("os", 1)):
            # The notes of another attempt may come later; the message has all.
            state = becomes(results[kind].id, State.DEAD)
            retried = [moment.detail for moment in state.timeline if moment.what == "retried"]
            error = {"timeout": "TimeoutError", "os": "OSError"}[kind]
            assert retried == [f"attempt {number}: {error}: because of {kind}" for number in range(1, retries + 1)]
        waiting = becomes(results["value"].id, State.RETRYING)
        (retried_at,) = (moment.at for moment in waiting.timeline if moment.what == "retried")
        assert waiting.next_at - retried_at == pytest.approx(500, abs=5)
        # The message alone tells, too.
        redis_server.client.delete(f"taskapp:task:{results['timeout'].id}:retries")
        assert "attempt 3: TimeoutError: because of timeout" in shown(redis_server, results["timeout"].id)
    said = "".join(node.output() for node in nodes)
    assert said.count(" failed after attempt 1 at ") == 6

    with app.finished_tasks() as finished:
        ends = [entry.finished for entry in finished.oldest(100, 1)]
    (end,) = (end for end in ends if end and end.id == results["timeout"].id)
    first, second, third, empty, head, *_ = end.traceback.splitlines()
    assert all(line.startswith(f"attempt {n} at 20") for n, line in enumerate((first, second, third), 1))
    assert (empty, head) == ("", "Traceback (most recent call last):")


def test_a_task_that_recovers_has_its_attempts_in_the_history(app: Any, nodes: list[Process]) -> None:
    result = retrying.recovers.delay()

    assert result.get(timeout=30) == 2
    with app.finished_tasks() as finished:
        (entry,) = finished.oldest(10, 5_000)
    assert (entry.finished.state, entry.finished.attempts) == ("succeeded", 3)
    assert [line.partition(": ")[2] for line in entry.finished.traceback.splitlines()] == [
        "TimeoutError: attempt 1", "TimeoutError: attempt 2",
    ]  # fmt: skip


def test_a_budget_that_is_used_up_fails_tasks_on_all_nodes(app: Any, nodes: list[Process], redis_server: Any) -> None:
    types = (
        retrying.budgeted, retrying.budgeted_in_a_coroutine, retrying.budgeted_in_a_child,
        retrying.budgeted_without_an_error, retrying.budgeted_with_an_error_never_raised,
    )  # fmt: skip
    for task in types:
        results = [task.delay() for _ in range(4)]
        errors = [result.get(timeout=30, propagate=False) for result in results]

        wanted = RetryBudgetUsedUp if task is retrying.budgeted_without_an_error else TimeoutError
        assert {type(error) for error in errors} == {wanted}, errors
        assert sum(task_state(result.id).attempts for result in results) == 4 + 7
        # Withdrawn retries left nothing behind.
        assert redis_server.client.zcard("taskapp:{default}:delayed") == 0
        tracebacks = [result.traceback for result in results]
        reason = f"not retried: the retry budget of '{task.name}' (7/h) is used up"
        assert any(reason in text for text in tracebacks)
    said = "".join(node.output() for node in nodes)
    assert said.count("is not retried: the retry budget of") >= 4 * 1


def test_a_share_of_the_runs_may_be_retried(nodes: list[Process]) -> None:
    task = retrying.shared_budget
    assert [result.get(timeout=60) for result in task.submit_many([(False,)] * 60)] == [None] * 60
    results = task.submit_many([(True,)] * 60)

    assert {type(result.get(timeout=60, propagate=False)) for result in results} == {TimeoutError}
    retried = sum(task_state(result.id).attempts == 2 for result in results)
    # From a quarter of the 60 that had run before to a quarter of all that have run since.
    assert 15 <= retried <= 45


def test_on_rabbitmq_errors_have_their_times_and_a_budget_is_refused(
    app: Any, tmp_path: Path, rabbitmq_url: str, redis_server: RedisServer
) -> None:
    settings = {"TASKAPP_INCLUDE": "tests.integration.retrying_elsewhere", "TASKAPP_RESULT_URL": redis_server.url}
    process = start_worker(tmp_path, rabbitmq_url, **settings)
    try:
        with app.connection_for_write(url=rabbitmq_url) as connection:
            result = app.send_task("tests.integration.retrying_elsewhere.recovers", connection=connection)
        assert result.get(timeout=60) == 2
    finally:
        process.kill()
    refused = start_worker(tmp_path, rabbitmq_url, name="refused", wait=False, TASKAPP_INCLUDE=MODULE)
    try:
        assert refused.wait(60) == 78
    finally:
        refused.kill()
    assert "cannot have the option 'retry_budget': it needs Redis as the broker" in refused.output()


def test_the_attempts_are_shown_as_json(nodes: list[Process], redis_server: RedisServer) -> None:
    result = retrying.fails.delay("os")
    assert isinstance(result.get(timeout=30, propagate=False), OSError)

    timeline = eventually(lambda: len(t := json.loads(shown(redis_server, result.id, "--json"))["timeline"]) > 2 and t)
    assert [moment["detail"] for moment in timeline if moment["what"] == "retried"] == [
        "attempt 1: OSError: because of os"
    ]
