"""The app inside a Django project."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import psycopg
import pytest

from tests.integration.django_projects import Project
from tests.support import Process, RedisServer, clean_environment, eventually, free_port, run_python, start_worker

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
        done = run_python("-c", PROLOGUE + code, env=env, cwd=project)
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


VIEW = """
from django.http import HttpResponse
from django.urls import path
from taskapp import Celery
import jobs

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
urlpatterns = [path("", lambda request: HttpResponse("first " + jobs.ask.delay().id))]
"""


@pytest.mark.slow
def test_the_development_server_reloads_changed_code_and_submits_again(
    project: Path, ask: Ask, redis_server: RedisServer
) -> None:
    (project / "views.py").write_text(VIEW)
    settings = f"ROOT_URLCONF = 'views'; DEBUG = True; CELERY_BROKER_URL = '{redis_server.url}'"
    (project / "project_settings.py").write_text(f"{SETTINGS}{settings}")
    port = free_port()
    env = clean_environment(DJANGO_SETTINGS_MODULE="project_settings", PYTHONPATH=f"{project}:{Path.cwd()}")
    argv = [sys.executable, "-m", "django", "runserver", str(port)]
    server, answers = Process(argv, project / "server.log", env, cwd=project), []

    def says(word: str) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                answers.append(answer.read().decode())
        except OSError:
            return False  # it starts, or reloads
        return bool(answers[-1].startswith(word))

    try:
        eventually(lambda: says("first"), within_seconds=60)
        (project / "views.py").write_text(VIEW.replace("first", "second"))
        eventually(lambda: says("second"), within_seconds=60)
    finally:
        server.kill()  # with the child that serves

    assert len(set(answers)) == len(answers)
    assert ask("print(taskapp.celery.app.connection().default_channel._size('celery'))") == [str(len(answers))]


# --- a project of its own, as Celery documents it, on PostgreSQL ---------------------------------

KINDS = ("on_thread", "nested", "on_loop", "in_child", "coroutine_in_child")
ALL_KINDS = f"""
said = {{}}
for name in {KINDS}:
    results = [getattr(tasks, name).delay() for _ in range(4)]
    said[name] = len({{json.dumps(result.get(timeout=60)) for result in results}})
"""


@pytest.mark.parametrize("options", [(), ("-P", "prefork"), ("-P", "threads"), ("-P", "solo")], ids=str)
def test_no_kind_of_task_leaves_a_connection(shop: Project, options: tuple[str, ...]) -> None:
    shop.node(*options)

    shop.say(ALL_KINDS)

    eventually(lambda: shop.open_connections() == 0)


def test_connections_stay_for_their_maximum_age(shop: Project) -> None:
    # Two threads, two children and the thread of coroutines in the node and in each child.
    node = shop.node(PROJ_CONN_MAX_AGE="None", TASKAPP_CHILD_PROCESSES="2")
    shop.say(ALL_KINDS)
    before = shop.open_connections()
    shop.say(ALL_KINDS)

    assert 1 <= before <= shop.open_connections() <= 7
    node.terminate()
    eventually(lambda: shop.open_connections() == 0)


def test_a_connection_past_its_age_is_closed_by_the_next_task(shop: Project) -> None:
    shop.node("-c", "1", PROJ_CONN_MAX_AGE="1")

    first, second, _, third = shop.say("""
ask = lambda: tasks.on_thread.delay().get(timeout=60)[0]
said = [ask(), ask(), time.sleep(1.1), ask()]
""")

    assert first == second != third


def test_coroutines_survive_a_database_that_restarts(shop: Project) -> None:
    shop.node(PROJ_CONN_MAX_AGE="None")
    shop.say("said = tasks.on_loop.delay().get(timeout=60)")
    with psycopg.connect(shop.database.url, autocommit=True) as connection:  # type: ignore[union-attr]
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'shop'")

    said = shop.say("""
said = []
for _ in range(3):
    result = tasks.on_loop.delay()
    result.get(timeout=60, propagate=False)
    said.append(result.state)
""")

    assert said[1:] == ["SUCCESS", "SUCCESS"]


def test_a_coroutine_that_reads_in_chunks_keeps_its_connection_when_others_end(shop: Project) -> None:
    shop.node()

    said = shop.say("""
slow = tasks.in_chunks.delay(20)
while slow.state != "STARTED":
    time.sleep(0.05)
others = [tasks.on_loop.delay().get(timeout=60) for _ in range(5)]
said = slow.get(timeout=60)
""")

    assert said == list(range(20))
    eventually(lambda: shop.open_connections() == 0)


def test_tasks_run_in_the_project_s_time_zone(shop: Project) -> None:
    shop.node()

    assert shop.say("said = tasks.zone.delay().get(timeout=60)") == ["Europe/Berlin"] * 2


def test_errors_of_system_checks_are_logged_at_start(shop: Project) -> None:
    node = shop.node(PROJ_MORE="INSTALLED_APPS=['shop','shop.broken']")

    assert "system check: ?: (shop.E001) the shop has no till" in node.output()
    shop.close()
    assert "shop.E001" not in shop.node(PROJ_MORE="INSTALLED_APPS=['shop','shop.broken']", CELERY_SKIP_CHECKS="1",
                                        name="w2").output()  # fmt: skip


MISSPELT = {
    "CELERY_TASKAPP_ASYNC_SLOT=5": (
        1, "unknown setting CELERY_TASKAPP_ASYNC_SLOT; did you mean CELERY_TASKAPP_ASYNC_SLOTS?"
    ),
    "CELERY_TASKAPP_LEASE_SECONDS='x'": (1, "setting CELERY_TASKAPP_LEASE_SECONDS cannot be 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("setting", MISSPELT)
def test_a_wrong_setting_is_named_in_one_line(plain_shop: Project, setting: str) -> None:
    code, text = MISSPELT[setting]

    done = plain_shop.run("-m", "celery", "-A", "proj", "worker", PROJ_MORE=setting)

    assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    assert done.stderr.count("\n") == 1


def test_doctor_names_misspelt_settings_of_celery(plain_shop: Project) -> None:
    done = plain_shop.run(
        "-m", "taskapp", "-A", "proj", "doctor", "--json",
        PROJ_MORE="CELERY_TASK_ACK_LATE=True CELERY_BROKER_ULR='x' CELERY_OF_THE_SHOP=1",
    )  # fmt: skip

    assert "did you mean CELERY_TASK_ACKS_LATE?" in done.stdout, done
    assert "did you mean CELERY_BROKER_URL?" in done.stdout
    assert "OF_THE_SHOP" not in done.stdout
