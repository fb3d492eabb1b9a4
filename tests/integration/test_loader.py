"""``CELERY_LOADER=taskapp.loader:Loader`` in a project whose files are not edited."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Process, RedisServer, clean_environment, start_worker

HERE = Path(__file__).parent
LOADER = "taskapp.loader:Loader"


@pytest.fixture
def node(redis_server: RedisServer, tmp_path: Path) -> Iterator[Process]:
    worker = start_worker(
        tmp_path, redis_server.url, app="uneditable", PROJ_BROKER=redis_server.url, PYTHONPATH=str(HERE),
        CELERY_LOADER=LOADER,
    )  # fmt: skip
    yield worker
    worker.close()


def run(server: RedisServer, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    variables = clean_environment(
        PROJ_BROKER=server.url, PYTHONPATH=f"{HERE}:{Path.cwd()}", CELERY_LOADER=LOADER, **env
    )  # fmt: skip
    command = [sys.executable, *argv]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)


def test_a_project_that_is_not_edited_runs_on_taskapp(node: Process, redis_server: RedisServer) -> None:
    code = (
        "import json; from uneditable import app, coroutine, flaky, price\n"
        "print(json.dumps([coroutine.delay(1).get(timeout=20), flaky.delay().get(timeout=20),"
        "price.delay(3).get(timeout=20), app.conf.task_acks_late, app.conf.task_time_limit,"
        "type(app).__module__, price(4)]))"
    )
    done = run(redis_server, "-c", code)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1, 2, "3 EUR", True, 60, "taskapp.app.application", "4 EUR"]
    top = run(redis_server, "-m", "taskapp", "-A", "uneditable", "top", "--json")
    assert '"old"' in top.stdout, top.stderr


def test_a_django_project_that_is_not_edited_runs_on_taskapp(redis_server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "its_settings.py").write_text("SECRET_KEY = 'x'\nINSTALLED_APPS = []\nTIME_ZONE = 'Europe/Rome'\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from uneditable import app, coroutine\n"
        "print(coroutine.delay_on_commit.__name__, app.conf.task_acks_late, type(app).__module__)"
    )
    done = run(redis_server, "-c", code, DJANGO_SETTINGS_MODULE="its_settings")

    assert done.stdout == "delay_on_commit True taskapp.app.application\n", done.stderr


def test_an_app_of_a_class_of_its_own_cannot_be_turned(redis_server: RedisServer) -> None:
    done = run(redis_server, "-c", "from uneditable import own; own.conf.task_acks_late")

    assert "derive uneditable.Own from taskapp.Celery instead" in done.stderr
