"""What is imported where: a process that only submits, and a command that only prints its help, start light."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support import clean_environment

OF_OTHERS = (
    "aiosmtpd", "asyncio", "cryptography", "dotenv", "duckdb", "ephem", "flower", "hiredis", "httpx", "idna", "jinja2",
    "matplotlib", "msgspec", "numpy", "opentelemetry", "platformdirs", "prometheus_client", "pydantic",
    "pythonjsonlogger", "redis", "rich", "sqlalchemy", "tornado", "uvloop", "watchfiles",
)  # fmt: skip
"""Packages that take long to import, or much memory."""
ROOMS = ("beat", "cli", "engine", "execution", "monitor", "results", "tasks", "tracing", "transport", "worker")
"""Rooms of ours that are entered when a task is submitted or run, or something is watched."""


def imported_by(code: str) -> set[str]:
    code += "\nimport json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean_environment()
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "code",
    [
        "import taskapp.celery",
        # As a web application's module of tasks does.
        "from taskapp.celery import app\n@app.task\ndef pay(order): ...",
        "from taskapp import Celery, shared_task\napp = Celery('shop')\n@app.task\ndef pay(order): ...\n"
        "@shared_task\ndef bill(order): ...",
        "import taskapp.celery\nfrom celery import shared_task\n@shared_task\ndef pay(order): ...",
    ],
)
def test_the_app_brings_in_nothing_that_it_does_not_need_yet(code: str) -> None:
    modules = imported_by(code)

    assert modules & {*OF_OTHERS} == set()
    assert modules & {f"taskapp.{room}" for room in ROOMS} == set()


def test_types_are_for_type_checkers_alone() -> None:
    modules = imported_by("from taskapp import *\nfrom taskapp.tasks import add\nadd.s(1, 2) | add.s(3)")

    types = ("app.task", "client.fallback", "client.option", "client.result", "client.stock")
    assert modules & {f"taskapp.{name}_types" for name in types} == set()


def test_help_brings_in_no_command() -> None:
    modules = imported_by(
        "from click.testing import CliRunner\nfrom taskapp.cli.main import taskapp\n"
        "assert 'dead letters' in CliRunner().invoke(taskapp, ['--help']).output"
    )

    assert modules & {*OF_OTHERS, "celery", "kombu"} <= {"asyncio"}
    assert {name for name in modules if name.startswith("taskapp.cli.")} <= {
        "taskapp.cli.main", "taskapp.cli.output", "taskapp.cli.table",
    }  # fmt: skip


def test_looking_at_the_engine_brings_in_neither_results_nor_schedules_nor_the_worker() -> None:
    modules = imported_by("import taskapp.cli.dead\nfrom taskapp.celery import app\napp.conf.broker_url, app.resources")

    rooms = ("beat", "execution", "results.backend", "schedules", "tasks", "worker")
    assert modules & {f"taskapp.{room}" for room in rooms} == set()


def test_a_submit_brings_in_pydantic_only_for_task_types_that_need_it() -> None:
    own = (
        "import taskapp.celery\nfrom celery import shared_task\n@shared_task\ndef pay(order: int) -> int: ...\n"
        "from taskapp.tasks import data_processing, http_request, report_generation, send_email\n"
        "assert not pay.payload() and pay.s(1) and pay.app.amqp"
    )
    modules = imported_by(own)

    assert modules & {"annotated_types", "dotenv", "pydantic"} == set()
    assert "taskapp.settings" in modules
    assert "pydantic" in imported_by("from taskapp.tasks import add; assert add.payload()")


@pytest.mark.parametrize(
    "code",
    [
        "from taskapp.tasks.send_email import EmailMessage",
        "from taskapp.tasks import send_email; assert 'message' in dict(send_email.payload()._by_name)",
        "from taskapp.tasks import report_generation as it; assert {'parts', 'report'} == {*it.payload()._by_name}",
        "from taskapp.tasks.data_processing import Aggregation; Aggregation(path='x', measures=[{'name': 'n', "
        "'function': 'count'}])",
    ],
)
def test_a_shipped_task_type_brings_in_its_models_when_they_are_used(code: str) -> None:
    assert {"pydantic", "taskapp.tasks.shared.texts"} & imported_by(code)


def test_a_shipped_task_type_offers_nothing_else() -> None:
    imported_by("import taskapp.tasks.send_email as it, sys; assert not hasattr(sys.modules[it.__module__], 'Nothing')")


@pytest.mark.parametrize(("options", "needs_it"), [("", False), ("typed=True", True)])
def test_a_node_brings_in_pydantic_before_a_typed_task_runs(options: str, needs_it: bool) -> None:
    modules = imported_by(
        "from taskapp.celery import app\nimport taskapp.tasks\nfrom taskapp.worker.worker import import_checks\n"
        f"@app.task({options})\ndef pay(order: int): ...\nimport_checks(app.tasks.values())"
    )

    assert ("pydantic" in modules) == needs_it
