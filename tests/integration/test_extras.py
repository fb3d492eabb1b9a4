"""A node without the extras of shipped task types, next to one that has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery
from celery.result import AsyncResult

from taskapp.monitor.task_state import State, task_state
from taskapp.tasks import add
from tests.support import Process, RedisServer, clean_environment, eventually, run_python, start_worker

LACKING = ("aiosmtpd", "duckdb", "httpx", "idna", "jinja2", "markupsafe", "matplotlib", "numpy", "rich", "watchfiles")
AGGREGATION = {"path": "rows.csv", "measures": [{"name": "rows", "function": "count"}]}


@pytest.fixture
def light(tmp_path: Path) -> str:
    """A folder for ``PYTHONPATH`` where Python finds none of the packages that extras bring."""
    folder = tmp_path / "light"
    folder.mkdir()
    folder.joinpath("sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({LACKING!r}))\n")
    return str(folder)


def test_a_node_without_extras_says_so_and_leaves_the_messages_to_one_that_has_them(
    app: Celery, worker: Callable[..., Process], redis_server: RedisServer, light: str, tmp_path: Path
) -> None:
    tmp_path.joinpath("rows.csv").write_text("a\n1\n2\n")
    aggregation = {**AGGREGATION, "path": str(tmp_path / "rows.csv")}
    without = worker(name="without", PYTHONPATH=light)
    result: AsyncResult = app.send_task("taskapp.data_processing", (aggregation,))

    assert add.delay(2, 3).get(timeout=20) == 5
    eventually(lambda: task_state(result.id).state is State.PARKED)
    warnings = [line for line in without.output().splitlines() if "this node does not run" in line]
    assert [line.partition("does not run ")[2] for line in warnings] == [
        f"taskapp.{task}: package {package} is not installed; install it with pip install 'taskapp[{extra}]'"
        for task, package, extra in (
            ("data_processing", "duckdb", "data"), ("http_request", "httpx", "http"),
            ("report_generation", "jinja2", "reports"), ("send_email", "idna", "mail"),
        )
    ]  # fmt: skip
    worker(name="with", TASKAPP_FILE_DIRS=str(tmp_path))
    assert result.get(timeout=30)["rows"] == [[2]]
    assert "Traceback" not in without.output()


def test_on_rabbitmq_the_task_fails_with_the_name_of_the_extra(
    redis_server: RedisServer, rabbitmq_url: str, light: str, tmp_path: Path
) -> None:
    env = {"PYTHONPATH": light, "TASKAPP_RESULT_URL": redis_server.url}
    node = start_worker(tmp_path, rabbitmq_url, **env)
    try:
        code = (
            f"from taskapp.celery import app; sent = app.send_task('taskapp.data_processing', ({AGGREGATION!r},)); "
            "error = sent.get(timeout=20, propagate=False); print(type(error).__name__, error)"
        )
        variables = clean_environment(TASKAPP_BROKER_URL=rabbitmq_url, TASKAPP_DATA_DIR=str(tmp_path / "data"), **env)
        done = run_python("-c", code, env=variables)
        assert "TaskTypeMissesExtra" in done.stdout, done.stderr
        assert "pip install 'taskapp[data]'" in done.stdout
    finally:
        node.close()


@pytest.mark.parametrize(
    ("arguments", "extra"), [(("demo",), "demo"), (("up", "--reload"), "reload"), (("top", "--once"), "top")]
)
def test_a_command_says_in_one_line_which_extra_it_needs(
    arguments: tuple[str, ...], extra: str, light: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    env = clean_environment(TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path), PYTHONPATH=light)

    done = run_python("-m", "taskapp", *arguments, env=env, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"pip install 'taskapp[{extra}]'" in done.stderr
