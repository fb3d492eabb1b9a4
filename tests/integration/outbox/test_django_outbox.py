"""Tasks submitted in Django's transactions."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.outbox.conftest import SLOWLY_ELSEWHERE, url_of
from tests.support import Process, RedisServer, clean_environment, eventually, run_python, start_worker

SETTINGS = """
import json, os, pymysql
pymysql.install_as_MySQLdb()
SECRET_KEY = "x"
DATABASES = json.loads(os.environ["DATABASES"])
INSTALLED_APPS = ["taskapp.django", "shop"]
USE_TZ = True
"""
SHOP = {
    "__init__.py": "import taskapp.celery\n",
    "models.py": """
from django.db import models

class Order(models.Model):
    task = models.CharField(max_length=64)
""",
    "tasks.py": """
from celery import shared_task

ran = []

@shared_task
def receipt(number):
    ran.append(number)
    return number
""",
    "tests.py": """
from django.db import transaction
from django.test import TestCase, TransactionTestCase
from taskapp.celery import app
from taskapp.django import outbox
from taskapp.django.models import OutboxMessage
from taskapp.django.outbox_store import DjangoStore
from taskapp.outbox.relay import Relay
from shop.tasks import ran, receipt

def queued():
    return app.connection().default_channel._size("default")

class WithoutACommit(TestCase):
    def test_the_row_is_there_and_nothing_is_queued(self):
        before = queued()
        with transaction.atomic():
            outbox.delay(receipt, 1)
        self.assertEqual(OutboxMessage.objects.get().task, "shop.tasks.receipt")
        self.assertEqual(queued(), before)

    def test_an_eager_app_runs_it_where_commits_are_played(self):
        app.conf.task_always_eager = True
        try:
            with self.captureOnCommitCallbacks(execute=True):
                outbox.delay(receipt, 2)
            self.assertEqual(ran, [2])
        finally:
            app.conf.task_always_eager = False

class WithACommit(TransactionTestCase):
    def test_a_relay_in_the_test_queues_it(self):
        before = queued()
        with transaction.atomic():
            outbox.delay(receipt, 3)
        import time
        until = time.monotonic() + 20
        while OutboxMessage.objects.exists() and time.monotonic() < until:
            Relay(app, DjangoStore("default")).drain()
        self.assertEqual(queued(), before + 1)
""",
}
PROLOGUE = """
import django, os, signal, sys, time
django.setup()
from django.db import connections, transaction
from shop.models import Order
from shop.tasks import receipt
from taskapp.django import outbox
from taskapp.django.models import OutboxMessage

def gone(using="default"):
    until = time.monotonic() + 20
    while OutboxMessage.objects.using(using).exists() and time.monotonic() < until:
        time.sleep(0.02)
    print(OutboxMessage.objects.using(using).count())
"""


def database_of(url: str) -> dict[str, object]:
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parts.path[1:]}
    return {
        "ENGINE": f"django.db.backends.{parts.scheme}", "NAME": parts.path[1:], "USER": parts.username,
        "PASSWORD": parts.password, "HOST": parts.hostname, "PORT": parts.port,
    }  # fmt: skip


class Project:
    """A Django project with a shop."""

    def __init__(self, directory: Path, broker_url: str, databases: dict[str, dict[str, object]]) -> None:
        self.directory = directory
        (directory / "project_settings.py").write_text(SETTINGS)
        (directory / "shop").mkdir()
        for name, text in SHOP.items():
            (directory / "shop" / name).write_text(text)
        self.env = clean_environment(
            TASKAPP_BROKER_URL=broker_url, TASKAPP_DATA_DIR=str(directory / "data"), TASKAPP_INCLUDE="shop.tasks",
            DJANGO_SETTINGS_MODULE="project_settings", PYTHONPATH=f"{directory}:{Path.cwd()}",
            DATABASES=json.dumps(databases),
        )  # fmt: skip
        for alias in databases:
            self.run("-m", "django", "migrate", "--run-syncdb", "--database", alias)

    def run(self, *arguments: str, code: int = 0) -> str:
        done = run_python(*arguments, env=self.env, cwd=self.directory, timeout=100)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def python(self, text: str, code: int = 0) -> list[str]:
        return self.run("-c", PROLOGUE + text, code=code).splitlines()


@pytest.fixture
def project(tmp_path: Path, url: str, redis_server: RedisServer) -> Project:
    """A project whose default database is of each kind."""
    store_url = url if "sqlite" not in url else f"sqlite:///{tmp_path}/django.sqlite"
    drop_tables(url)
    return Project(tmp_path, redis_server.url, {"default": database_of(store_url)})


def drop_tables(url: str) -> None:
    """Let Django's migrations create them."""
    from sqlalchemy import MetaData

    from taskapp.outbox.sql_store import SqlStore

    store, found = SqlStore.at(url), MetaData()
    found.reflect(store.engine)
    found.drop_all(store.engine)
    store.engine.dispose()


Queued = Callable[..., Sequence[str]]


def test_tasks_are_queued_if_and_only_if_their_block_commits(project: Project, queued: Queued) -> None:
    said = project.python("""
with transaction.atomic():
    first = outbox.delay(receipt, 1)
    try:
        with transaction.atomic():
            outbox.delay(receipt, 2)
            raise KeyError
    except KeyError:
        pass
    with transaction.atomic():
        second = outbox.apply_async(receipt.s(3), queue="high", priority=5)
try:
    with transaction.atomic():
        outbox.delay(receipt, 4)
        raise KeyError
except KeyError:
    pass
third = outbox.apply_async("shop.tasks.receipt", (5,), countdown=0)
gone()
print(first.id, second.id, third.id)
""")

    assert said[0] == "0"
    first, second, third = said[1].split()
    assert sorted(queued()) == sorted([first, third])
    assert queued("high", 5) == [second]


@pytest.mark.quick("postgresql")
@SLOWLY_ELSEWHERE
def test_what_a_killed_process_left_is_queued_by_any_relay(project: Project, queued: Queued) -> None:
    said = project.python("""
with transaction.atomic():
    result = outbox.delay(receipt, 1)
    transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
    transaction.get_connection().run_on_commit.reverse()
    print(result.id, flush=True)
""", code=-signal.SIGKILL)  # fmt: skip
    assert queued() == []

    assert "queued 1 tasks" in project.run("-m", "django", "taskapp_outbox", "--once")
    assert queued() == said
    assert "queued 0 tasks" in project.run("-m", "taskapp", "outbox", "run", "--once")


@pytest.mark.quick("postgresql")
@SLOWLY_ELSEWHERE
def test_a_relay_runs_until_it_is_stopped(project: Project, queued: Queued, redis_server: RedisServer) -> None:
    redis_server.kill()
    project.python("""
with transaction.atomic():
    outbox.delay(receipt, 1)
print(OutboxMessage.objects.count())
""")
    argv = [sys.executable, "-m", "django", "taskapp_outbox"]
    relay = Process(argv, project.directory / "relay.log", project.env, cwd=project.directory)
    try:
        eventually(lambda: "the rows of the outbox at default wait" in relay.output())
        redis_server.start()
        assert eventually(lambda: len(queued()) == 1)
    finally:
        assert relay.terminate() == 0


@SLOWLY_ELSEWHERE
def test_a_node_relays_the_database_of_the_project(project: Project, redis_server: RedisServer, queued: Queued) -> None:
    project.env["TASKAPP_OUTBOX_URL"] = "django://default"
    ours = ("TASKAPP_OUTBOX", "TASKAPP_INCLUDE", "DJANGO", "DATABASES")
    env = {name: value for name, value in project.env.items() if name.startswith(ours)}
    node = start_worker(project.directory, redis_server.url, **env)
    try:
        said = project.python("""
from taskapp.outbox import promptly
promptly.PromptRelay.note = lambda *_: None
with transaction.atomic():
    result = outbox.delay(receipt, 7)
print(result.get(timeout=30))
""")
        assert said == ["7"]
        assert project.run("-m", "taskapp", "outbox", "status").startswith("database        default\n")
    finally:
        assert node.terminate() == 0
    assert "no-such" in project.run("-m", "taskapp", "outbox", "status", "--database", "no-such", code=1)


@SLOWLY_ELSEWHERE
def test_djangos_test_cases(project: Project) -> None:
    assert "OK" in project.run("-m", "django", "test", "shop", "--noinput")


def test_each_of_several_databases_has_its_own(
    tmp_path: Path, servers: dict[str, object], redis_server: RedisServer, queued: Queued
) -> None:
    urls = {"default": f"sqlite:///{tmp_path}/django.sqlite", "orders": url_of("postgresql", servers, tmp_path)}
    drop_tables(urls["orders"])
    project = Project(tmp_path, redis_server.url, {alias: database_of(url) for alias, url in urls.items()})
    said = project.python("""
with transaction.atomic(using="orders"):
    try:
        with transaction.atomic():
            outbox.delay(receipt, 1)
            kept = outbox.using("orders").delay(receipt, 2)
            raise KeyError
    except KeyError:
        pass
gone("orders")
print(OutboxMessage.objects.count(), kept.id)
""")

    assert said == ["0", f"0 {queued()[0]}"]
    assert len(queued()) == 1
    assert "no table taskapp_outbox" not in project.run("-m", "taskapp", "outbox", "status", "--database", "orders")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_migrations_are_those_of_the_models(project: Project) -> None:
    assert "No changes detected" in project.run("-m", "django", "makemigrations", "--check", "taskapp")
    project.run("-m", "django", "migrate", "taskapp", "zero")
    said = project.run("-m", "taskapp", "outbox", "status", code=1)
    assert "run: python manage.py migrate taskapp" in said
