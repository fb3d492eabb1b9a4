"""Ends of tasks on nodes of other kinds, and of nodes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.integration.history.conftest import Deployment
from tests.integration.rabbitmq import RabbitMQ, is_installed
from tests.support import Node


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
@pytest.mark.slow
def test_so_it_is_in_celerys_pools(deployment: Deployment, pool: str) -> None:
    deployment.node("-P", pool)
    deployment.writer()

    ids = deployment.submit("[returns.delay(1), fails.delay('no'), retries.delay(1), at_most_once.delay(3)]")

    ends = [deployment.end_of(task_id) for task_id in ids]
    assert [end.state for end in ends] == ["succeeded", "failed", "succeeded", "succeeded"]
    assert [end.attempts for end in ends] == [1, 1, 2, 1]
    assert ends[1].error == "ValueError: no"
    assert "in fails" in ends[1].traceback


@pytest.mark.slow
def test_a_task_that_kills_its_processes_dies(deployment: Deployment) -> None:
    nodes = [deployment.node(name=f"node{number}") for number in range(4)]
    deployment.writer()
    task_id = deployment.submit("dies.delay()")

    end = deployment.end_of(task_id)

    assert (end.state, end.type, end.queue) == ("dead", "ends.dies", "default")
    assert "CrashedTooOften" in end.error
    assert end.attempts >= 3
    assert any(node.returncode is None for node in nodes)


def test_without_history_nothing_is_told(deployment: Deployment) -> None:
    deployment.node(TASKAPP_HISTORY="false")
    result = deployment.python(
        "print(json.dumps([returns.delay(1).get(timeout=20), at_most_once.delay(2).get(timeout=20)]))"
    )

    assert result == [[1, 2]]
    assert not deployment.server.client.exists("taskapp:finished")


RABBIT = pytest.mark.skipif(not is_installed(), reason="no RabbitMQ (Debian: apt install rabbitmq-server)")


@RABBIT
@pytest.mark.slow
def test_with_rabbitmq_ends_are_told_to_the_redis_of_results(deployment: Deployment, tmp_path: Path) -> None:
    server = RabbitMQ(tmp_path)
    over_rabbit = {"TASKAPP_BROKER_URL": server.url, "TASKAPP_RESULT_URL": deployment.server.url}
    try:
        variables = {**deployment.variables(), **over_rabbit, "TASKAPP_HISTORY": "true"}
        argv = [sys.executable, "-m", "celery", "-A", "taskapp", "worker", "-c", "2", "--loglevel", "INFO"]
        node = Node(argv, tmp_path / "node.log", variables, cwd=tmp_path)
        deployment.writer(**over_rabbit)
        ids = deployment.python(
            "for one in (returns.delay(1), fails.delay('no'), retries.delay(1), at_most_once.delay(2), "
            "returns_async.delay(3), replaced.delay(4), rejected.delay()): print(json.dumps(one.id))", **over_rabbit,
        )  # fmt: skip

        ends = [deployment.end_of(task_id) for task_id in ids]
        node.terminate(within_seconds=40)
    finally:
        server.close()
    assert [end.state for end in ends] == ["succeeded", "failed", *["succeeded"] * 4, "dead"]
    assert [end.queue for end in ends] == ["default"] * 7
    assert [end.type for end in ends][5] == "ends.returns"
