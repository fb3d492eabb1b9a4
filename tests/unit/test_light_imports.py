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
        "import taskapp.celery\nfrom celery import shared_task\n@shared_task\ndef pay(order): ...",
    ],
)
def test_the_app_brings_in_nothing_that_it_does_not_need_yet(code: str) -> None:
    modules = imported_by(code)

    assert modules & {*OF_OTHERS} == set()
    assert modules & {f"taskapp.{room}" for room in ROOMS} == set()


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
