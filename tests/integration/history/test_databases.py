"""The history, and Celery's own results, on real PostgreSQL and MariaDB servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.databases import DATABASES, Database, running
from tests.integration.history.conftest import Deployment, tell
from tests.integration.history.test_writer import rows, told
from tests.support import eventually


@pytest.fixture(scope="module", params=list(DATABASES))
def server(request: pytest.FixtureRequest) -> Iterator[Database]:
    with running(request.param) as server:
        yield server


@pytest.fixture
def on_server(server: Database, deployment: Deployment) -> Iterator[Deployment]:
    deployment.url = server.url
    yield deployment
    eventually(lambda: deployment.history.prune(-(10**9)) == 0)


def test_tasks_are_written_there_and_found(on_server: Deployment) -> None:
    on_server.node()
    on_server.writer()

    good, bad = on_server.submit("[returns.delay('\N{GRINNING FACE}'), fails.delay('broken \\0')]")

    assert on_server.end_of(good).result == "'\N{GRINNING FACE}'"
    assert on_server.end_of(bad).error == "ValueError: broken \ufffd"
    assert bad in on_server.run("search", "--state", "failed", "--text", "broken").stdout


@pytest.mark.quick("postgresql")
def test_a_server_that_is_killed_again_and_again_has_each_task_once(on_server: Deployment, server: Database) -> None:
    writer = on_server.writer()
    eventually(lambda: on_server.server.client.exists("taskapp:finished:writer"))
    for round_ in range(3):
        tell(on_server.server, *[told(round_ * 3_000 + number) for number in range(3_000)])
        server.kill()
        eventually(lambda: "cannot write finished tasks" in writer.output())
        server.start()

    eventually(lambda: on_server.waiting() == 0, within_seconds=60)
    assert rows(server.url) == {f"task-{number}": 1 for number in range(9_000)}
    assert writer.returncode is None


@pytest.mark.quick("postgresql")
def test_it_is_celerys_result_store(server: Database, deployment: Deployment) -> None:
    result_url = "db+" + server.url.replace("postgresql:", "postgresql+psycopg:").replace("mysql:", "mysql+pymysql:")
    deployment.env |= {"TASKAPP_RESULT_URL": result_url, "TASKAPP_HISTORY": "false"}
    node = deployment.node()
    more = {"TASKAPP_RESULT_URL": result_url}

    got = deployment.python(
        "from celery import chain\n"
        "print(json.dumps(chain(returns.s(1), returns.s())().get(timeout=40)))\n"
        "failed = fails.delay('no')\n"
        "print(json.dumps(str(failed.get(timeout=40, propagate=False))))\n"
        "print(json.dumps([failed.state, retries.delay(1).get(timeout=40)]))", **more,
    )  # fmt: skip

    assert got == [1, "no", ["FAILURE", 1]]
    assert node.returncode is None
