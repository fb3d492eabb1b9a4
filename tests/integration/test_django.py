"""The app inside a Django project."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import RedisServer, clean_environment, start_worker

TASKS = """
from celery import Task, shared_task
from django.db import connection

@shared_task
def ask():
    with connection.cursor() as cursor:
        return cursor.execute("select 41 + 1").fetchone()[0]

@shared_task
def is_still_open():
    return connection.connection is not None

class Base(Task):
    pass

@shared_task(base=Base)
def of_a_foreign_base(x):
    return x
"""
SETTINGS = """
SECRET_KEY = "x"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
INSTALLED_APPS = []
USE_TZ = True
"""
PROLOGUE = "import django, taskapp.celery; django.setup(); import jobs; from django.db import transaction\n"

Ask = Callable[[str], list[str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project_settings.py").write_text(SETTINGS)
    (tmp_path / "jobs.py").write_text(TASKS)
    return tmp_path


@pytest.fixture
def ask(project: Path, redis_server: RedisServer) -> Ask:
    """Run code as a web process of the project would; return the lines it prints."""

    def run(code: str) -> list[str]:
        env = clean_environment(
            TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(project / "data"), TASKAPP_INCLUDE="jobs",
            DJANGO_SETTINGS_MODULE="project_settings", PYTHONPATH=f"{project}:{Path.cwd()}",
        )  # fmt: skip
        argv = [sys.executable, "-c", PROLOGUE + code]
        done = subprocess.run(argv, env=env, cwd=project, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1]

    return run


@pytest.mark.quick("own", "prefork")
@pytest.mark.parametrize("options", [(), ("-P", "prefork"), ("-P", "solo")], ids=["own", "prefork", "solo"])
def test_tasks_use_the_database_and_leave_no_connection(
    project: Path, ask: Ask, redis_server: RedisServer, options: tuple[str, ...]
) -> None:
    node = start_worker(
        project, redis_server.url, *options, TASKAPP_INCLUDE="jobs", DJANGO_SETTINGS_MODULE="project_settings"
    )
    try:
        said = ask("""
print([jobs.ask.delay().get(timeout=20) for _ in range(3)])
print([jobs.is_still_open.delay().get(timeout=20) for _ in range(4)])
print(jobs.of_a_foreign_base.delay(7).get(timeout=20))
""")
    finally:
        node.close()

    assert said == ["[42, 42, 42]", "[False, False, False, False]", "7"]


def test_a_task_is_submitted_when_the_transaction_commits(ask: Ask, redis_server: RedisServer) -> None:
    said = ask("""
count = lambda: taskapp.celery.app.connection().default_channel._size("default")
with transaction.atomic():
    jobs.ask.delay_on_commit()
    print(count())
print(count())
try:
    with transaction.atomic():
        jobs.ask.apply_async_on_commit()
        raise KeyError
except KeyError:
    print(count())
""")

    assert said == ["0", "1", "1"]
