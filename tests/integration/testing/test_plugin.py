"""The pytest plugin in users' projects: silent where it is not used, readable where a test fails."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support import RedisServer, clean_environment, eventually

ROOT = Path(__file__).parents[3]
PLUGIN = "taskapp.testing.plugin"

APP = """
from taskapp import Celery

app = Celery("shop")

@app.task
def add(x, y):
    return x + y

@app.task
def pay(order_id):
    raise ValueError(f"order {order_id} is unknown")

@app.task(bind=True, max_retries=5)
def fetch(self, url):
    raise self.retry(countdown=60, exc=ConnectionError(url))
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(tmp_path: Path) -> Run:
    """Write a project's files and run its tests: ``project(*options, **{"test_x.py": …})``."""

    def run(*options: str, plugins: tuple[str, ...] = (), **files: str) -> subprocess.CompletedProcess[str]:
        for name, content in {"shop_py": APP, "pytest_ini": "[pytest]\ntaskapp_app = shop:app\n", **files}.items():
            (tmp_path / ".".join(name.rsplit("_", 1))).write_text(content)
        loaded = [argument for plugin in (PLUGIN, *plugins) for argument in ("-p", plugin)]
        environment = clean_environment() | {
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "COLUMNS": "120",
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *loaded, *options],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100,
        )  # fmt: skip

    return run


def test_the_entry_point_names_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["entry-points"]["pytest11"] == {"taskapp": PLUGIN}
    assert not any("pytest" in each for each in project["dependencies"])


def test_a_suite_that_does_not_use_it_imports_nothing_and_keeps_its_own_fixtures(project: Run) -> None:
    done = project(
        pytest_ini="[pytest]\naddopts = --strict-markers --strict-config -W error\n",
        test_x_py="""
import sys
import pytest

@pytest.fixture
def tasks():
    return "mine"

def test_own(tasks):
    assert tasks == "mine"
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert not loaded & {"celery", "kombu", "redis", "pydantic"}
    assert {name for name in sys.modules if name.startswith("taskapp")} == {
        "taskapp", "taskapp.version", "taskapp.testing", "taskapp.testing.plugin",
    }
""",
    )

    assert done.returncode == 0, done.stdout


def test_a_project_tests_its_tasks(project: Run) -> None:
    done = project(
        test_x_py="""
import pytest
from shop import add, fetch, pay

def test_adds(tasks):
    add.delay(2, 3)
    tasks.assert_submitted(add, 2, 3)
    assert [run.result for run in tasks.run_due()] == [5]

def test_fails(tasks):
    pay.delay(7)
    with pytest.raises(ValueError, match="order 7 is unknown"):
        tasks.run_due()

@pytest.mark.taskapp(start="2026-01-01T09:00", keep_failures=True)
def test_gives_up(tasks):
    result = fetch.delay("https://a.example")
    tasks.advance("1h")
    assert [run.state for run in tasks.runs] == 5 * ["RETRY"] + ["FAILURE"]
    assert str(tasks.now) == "2026-01-01 10:00:00+00:00"
    assert result.state == "FAILURE"
"""
    )

    assert done.returncode == 0, done.stdout


def test_what_fails_shows_the_lines_of_the_project_alone(project: Run) -> None:
    done = project(
        "-q",
        test_x_py="""
from shop import add, pay
from taskapp.testing import call

def test_fails(tasks):
    pay.delay(7)
    tasks.run_due()

def test_other_arguments(tasks):
    add.delay(2, 3)
    tasks.assert_submitted(add, 2, 4)

def test_other_tasks(tasks):
    add.delay(2, 3)
    pay.delay(7)
    assert [call(add, 2, 3), call(pay, 8), call(pay, 9)] == tasks.submitted

def test_too_early(tasks):
    assert add.apply_async((2, 3), countdown=60).get() == 5
""",
    )

    assert done.returncode == 1
    assert "ValueError: order 7 is unknown" in done.stdout
    assert 'raise ValueError(f"order {order_id} is unknown")' in done.stdout
    assert "raised by task shop.pay[" in done.stdout
    assert "E         submitted: shop.add(2, 3) <queue='celery'>" in done.stdout
    assert "E           argument 1: expected 4, got 3" in done.stdout
    lines = [
        "       AssertionError: assert tasks as expected",
        "           shop.add(2, 3) <queue='celery'>",
        "         - shop.pay(8)",
        "         + shop.pay(7) <queue='celery'>",
        "             argument 0: expected 8, got 7",
        "         - shop.pay(9)",
    ]
    assert "\n".join(f"E{line}" for line in lines) in done.stdout
    assert "due in 0:01:00; move the clock with tasks.advance(…)" in done.stdout
    fails = done.stdout.partition("test_other_arguments")[0]
    assert [line for line in fails.splitlines() if ".py:" in line and "taskapp/" in line] == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"pytest_ini": "[pytest]\n", "test_x_py": "def test_x(tasks): ..."},
            "the testing kit needs your app: no app has been made yet; set `taskapp_app = proj.celery:app`",
        ),
        (
            {"pytest_ini": "[pytest]\ntaskapp_app = shop:ap\n", "test_x_py": "def test_x(tasks): ..."},
            "the testing kit needs your app: 'shop:ap' cannot be imported",
        ),
        (
            {
                "pytest_ini": "[pytest]\n",
                "test_x_py": "import celery\napp = celery.Celery('stock')\ndef test_x(tasks): ...",
            },
            "is no taskapp.Celery",
        ),
        (
            {"test_x_py": "import pytest\n@pytest.mark.taskapp(starts=1)\ndef test_x(tasks): ..."},
            "@pytest.mark.taskapp has no option 'starts'; did you mean 'start'?",
        ),
    ],
)
def test_what_is_set_up_wrongly_is_said(project: Run, files: dict[str, str], message: str) -> None:
    done = project("-q", **files)

    assert done.returncode == 1
    assert message in done.stdout


def test_the_current_app_is_the_default(project: Run) -> None:
    done = project(
        pytest_ini="[pytest]\n", test_x_py="from shop import add\ndef test_x(tasks): add.delay(1, 2).get()\n"
    )

    assert done.returncode == 0, done.stdout


def test_a_real_node_runs_tasks_also_under_xdist(project: Run) -> None:
    done = project(
        "-n", "2", "--dist", "load",
        plugins=("xdist",),
        test_x_py="""
import pytest
from shop import add, pay
from celery import chord

@pytest.mark.parametrize("n", range(4))
def test_adds(taskapp_worker, n):
    assert add.delay(n, n).get(timeout=30) == 2 * n
    with pytest.raises(ValueError):
        pay.delay(1).get(timeout=30)

def test_both(tasks, taskapp_worker):
    assert add.delay(1, 1).get() == 2
    assert len(tasks.runs) == 1
""",
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_a_killed_test_run_leaves_neither_node_nor_server(project: Run, tmp_path: Path) -> None:
    done = project(
        test_x_py="""
import os
from shop import add

def test_x(taskapp_worker, tmp_path_factory):
    assert add.delay(1, 1).get(timeout=30) == 2
    directory, = tmp_path_factory.getbasetemp().glob("taskapp[0-9]*")
    open("directory", "w").write(str(directory))
    os.kill(os.getpid(), 9)
"""
    )

    assert done.returncode == -9
    directory = (tmp_path / "directory").read_text()
    eventually(lambda: not Path(directory).exists() and not processes_that_name(directory), within_seconds=30)


def processes_that_name(text: str) -> list[int]:
    """Return the processes with ``text`` in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if text in " ".join((*process.cmdline(), *process.environ().values(), process.cwd())):
                found.append(process.pid)
    return found


def test_without_a_server_program_the_fixture_says_what_to_install(
    project: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = project(
        "-q",
        conftest_py="""
from taskapp.devredis import programs
programs._places = lambda: []
""",
        test_x_py="def test_x(taskapp_worker): ...",
    )

    assert "install a server of version 6.2 or newer: apt install redis-server" in done.stdout


DJANGO = {
    "shop_settings_py": """
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = []
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CELERY_TASK_DEFAULT_PRIORITY = 4
CELERY_BROKER_URL = "amqp://never.invalid"
""",
    "conftest_py": """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop_settings"
import django
django.setup()
""",
    "shop_py": APP
    + """
app.config_from_object("django.conf:settings", namespace="CELERY")
""",
}


def test_a_django_project_tests_what_is_submitted_on_commit(project: Run) -> None:
    done = project(
        **DJANGO,
        test_x_py="""
import pytest
from django.db import connection, transaction
from django.test import TestCase
from shop import add, app

@app.task
def in_transaction():
    return connection.in_atomic_block

class OrderTests(TestCase):
    @pytest.fixture(autouse=True)
    def _tasks(self, tasks):
        self.tasks = tasks

    def test_commits(self):
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            add.delay_on_commit(2, 3)
            assert not self.tasks.submitted
        assert self.tasks.assert_submitted(add, 2, 3).priority == 4
        assert [run.result for run in self.tasks.run_due()] == [5]

    def test_rolls_back(self):
        with self.captureOnCommitCallbacks(execute=True):
            with pytest.raises(ValueError), transaction.atomic():
                add.delay_on_commit(2, 3)
                raise ValueError
        self.tasks.assert_not_submitted(add)

    def test_tasks_see_the_transaction(self):
        assert in_transaction.delay().get() is True
        connection.ensure_connection()
""",
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


def test_coroutines_of_a_django_project_see_what_is_committed(project: Run, tmp_path: Path) -> None:
    settings = DJANGO["shop_settings_py"].replace(":memory:", str(tmp_path / "shop.sqlite3"))
    done = project(
        **{**DJANGO, "shop_settings_py": settings},
        test_x_py="""
import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.test import TransactionTestCase
from shop import app

def rows():
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from orders")
        return cursor.fetchone()[0]

@app.task
async def count():
    return await sync_to_async(rows)()

class OrderTests(TransactionTestCase):
    available_apps = []

    @pytest.fixture(autouse=True)
    def _tasks(self, tasks):
        self.tasks = tasks

    def test_counts(self):
        with connection.cursor() as cursor:
            cursor.execute("create table orders (id integer)")
            cursor.execute("insert into orders values (1)")
        count.delay()
        assert [run.result for run in self.tasks.run_due()] == [1]
        assert count.apply().get() == 1
""",
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


def test_celerys_own_fixtures_run_the_app(project: Run, redis_server: RedisServer) -> None:
    done = project(
        plugins=("celery.contrib.pytest",),
        conftest_py=f"""
import pytest
from celery.contrib.testing import tasks
from shop import app

@pytest.fixture
def celery_app():
    app.conf.update(broker_url={redis_server.url!r}, result_backend={redis_server.url!r})
    return app
""",
        test_x_py="""
from shop import add

def test_x(celery_app, celery_worker):
    assert add.delay(2, 3).get(timeout=20) == 5
""",
    )

    assert done.returncode == 0, done.stdout
