"""A Django project in the shape of readthedocs.org (2026.08.18, 793719612).

Its tasks are classes with hooks that keep data on themselves and signal handlers of their own, and a request class;
builds run in child processes, one at a time, under limits of their own, and are canceled with SIGINT. Workers have a
bootstep that connects signals, and the project logs by itself.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects.running import Project
from tests.support import RedisServer

pytest.importorskip("django_celery_beat", reason="does not allow this Django yet")
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
PROLOGUE = """
import os, time
os.environ["DJANGO_SETTINGS_MODULE"] = "docshost.settings"
import django
django.setup()
from docshost.worker import app, register_renamed_tasks
from builds.models import *
from builds.tasks import *
from oauth.tasks import *
from search.tasks import *

def until(condition, seconds=50):  # less than the process may take, so that it is this that fails
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition(), "not in time"

def reached(build, *states):
    until(lambda: Build.objects.get(pk=build.pk).state in states)

def seen(*texts):
    until(lambda: {*texts} <= {*Note.objects.values_list("text", flat=True)})

def row(build):
    return list(Build.objects.filter(pk=build.pk).values_list("state", "success", "tries")[0])
"""
RENAMED = """
from celery import signals

@signals.worker_init.connect
def rename(**_):
    register_renamed_tasks(app, {"search.tasks.old_name": "search.tasks.switch_index"})
"""


class Host(Project):
    def say(self, code: str) -> object:
        return super().say(PROLOGUE + code)


@pytest.fixture(scope="module")
def database(session_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with all tables."""
    url = session_server.url
    folder = tmp_path_factory.mktemp("database")
    host = Host("docs_host", "stock", folder, app="docshost.worker", DOCS_BROKER=url, DOCS_RESULTS=url)
    done = host.run(sys.executable, "manage.py", "migrate", "--run-syncdb", "-v", "0")
    assert not done.returncode, done.stderr
    return host.folder / "db.sqlite3"


@pytest.fixture(params=["taskapp", "stock"])
def host(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path, database: Path) -> Iterator[Host]:
    url = redis_server.url
    host = Host("docs_host", request.param, tmp_path, app="docshost.worker", DOCS_BROKER=url, DOCS_RESULTS=url)
    shutil.copy(database, host.folder)
    yield host
    host.close()


@pytest.fixture
def workers(host: Host) -> Host:
    """Two workers, as the project runs them: one for builds, one for all else; both with child processes."""
    host.workers(
        build=("-P", "prefork", "-c", "1", "-Q", "celery,build:default,build:large"),
        web=("-P", "prefork", "-c", "2", "-Q", "web,reindex"),
    )
    return host


def test_builds(workers: Host) -> None:
    said = workers.say("""
build = trigger_build("django", commit="abc", queue="build:large", extra=1)
reached(build, "finished")
seen("build passed", "protected False")
failed = trigger_build("broken", commit="def", acks_late=False)
reached(failed, "finished")
until(lambda: (settings.HERE / "index" / str(build.pk)).exists())
seen("build failed: BuildUserError", "status failure, retry 2")
html = (settings.HERE / "html" / f"{build.pk}.html").read_text()
statuses = Note.objects.filter(text__startswith="status")
said = [row(build), html, notes_of(build.task_id), row(failed), notes_of(failed.task_id),
        [each.text for each in statuses], len({each.task_id for each in statuses})]
""")

    assert said == [
        ["finished", True, 1], "django abc", ["after SUCCESS"],
        ["finished", False, 1], ["after FAILURE"],
        ["status failure, retry 0", "status failure, retry 1", "status failure, retry 2"], 1,
    ]  # fmt: skip


def test_a_build_waits_while_the_limit_is_reached_and_is_canceled_by_its_user(workers: Host) -> None:
    """``retry`` is called in ``before_start``; a running build gets SIGINT, a waiting one is revoked."""
    said = workers.say("""
Limit.objects.create(project="limited", free_after=2)
limited = trigger_build("limited", countdown=0.2)
reached(limited, "finished")
slow = trigger_build("slow", seconds=60)
reached(slow, "building")
waiting = trigger_build("waits")
newer = trigger_build("slow")
reached(newer, "finished")
cancel_build(waiting)
seen("build failed: BuildCanceled")
reached(slow, "canceled")
unhealthy = trigger_build("unhealthy", seconds=60)
reached(unhealthy, "building")
finish_unhealthy_builds.apply_async(queue="web")
reached(unhealthy, "canceled")
said = [row(limited), notes_of(limited.task_id), row(slow), notes_of(slow.task_id), row(newer), row(unhealthy)]
""")

    assert said == [
        ["finished", True, 3], ["delayed: too many builds"] * 2 + ["after SUCCESS"],
        ["canceled", False, 1], ["after FAILURE"],
        ["finished", True, 1],
        ["canceled", False, 1],
    ]  # fmt: skip


def test_builds_have_limits_of_their_own(workers: Host) -> None:
    """``on_timeout`` of the project's request class, soft and hard."""
    said = workers.say("""
soft = trigger_build("soft", limit_seconds=1, seconds=30)
reached(soft, "finished")
seen("build failed: SoftTimeLimitExceeded")
after = trigger_build("after")
reached(after, "finished")
said = [soft.task_id, row(soft), notes_of(soft.task_id), row(after)]
""")

    soft_id, *others = said
    assert others == [["finished", False, 1], ["after FAILURE"], ["finished", True, 1]]
    log = (workers.folder / "build.log").read_text()
    assert f"docshost WARNING builds.requests build limit soft of {soft_id}: 1 s" in log


def test_tasks_whose_progress_their_user_may_read(workers: Host) -> None:
    said = workers.say("""
result = sync_repositories.delay(user_id=7)
until(lambda: (result.info or {}).get("data"))
middle, end = [result.state, result.info], result.get(timeout=60)
bad = sync_repositories.delay(user_id=8, skip=True).get(timeout=60)
many = [app.AsyncResult(each).get(timeout=60)["context"] for each in sync_all_repositories.delay().get(timeout=60)]
check = app.tasks["oauth.tasks.sync_repositories"].check_permission(7, "STARTED", end["context"])
said = [middle, end, bad["error"], many, check]
""")

    name, context = "oauth.tasks.sync_repositories", {"user_id": 7}
    assert said == [
        ["STARTED", {"name": name, "context": context, "data": {"done": 1}}],
        {"name": name, "context": context, "data": {"done": 1}},
        "the token was revoked",
        [{"user_id": 7}, {"user_id": 8}],
        True,
    ]


def test_everything_else(workers: Host) -> None:
    said = workers.say("""
from celery import chain
indexed = [each.apply_async(queue="reindex") for each in indexing_tasks(25, 10, index="new")]
counts = [each.get(timeout=60)["count"] for each in indexed]
switched = chain(index_objects.si("page", [1], index="new"), switch_index.si("page", "new")).apply_async()
sync = Build.objects.create(project="sync")
done = sync_repository.apply_async(args=(sync.pk,), kwargs={"api_key": "k", "commit": "x"})
seen("sync has ['v1', 'v2']", "after SUCCESS")
with cache_lock(f"{sync_repository.name}-lock-sync", 60, "another"):
    locked = sync_repository.apply_async(args=(sync.pk,), kwargs={"api_key": "k"})
    seen("not synced: RepositoryLocked", "after FAILURE")
for number in range(3):
    Build.objects.create(project=f"old{number}", state="finished")
archive_builds.delay(limit=2)
until(lambda: Build.objects.filter(archived=True).count() == 2)
send_email.delay("ada@example.org", "hello")
until(lambda: (settings.HERE / "outbox" / "ada@example.org").exists())
foreign = app.send_task("builder.build", kwargs={"build_pk": 1}, queue="isolated-builds")
said = [counts, switched.get(timeout=60), notes_of(done.id), notes_of(locked.id), foreign.state]
""")

    assert said == [[10, 10, 5], "page -> new", ["after SUCCESS"],
                    ["not synced: RepositoryLocked", "after FAILURE"], "PENDING"]  # fmt: skip
    log = (workers.folder / "build.log").read_text()
    assert "docshost INFO docshost.steps log context for build" in log
    assert "docshost INFO docshost.steps prerun builds.tasks.sync_repository" in log
    assert "failure builds.tasks.sync_repository" in log
    assert "RepositoryLocked expected=True" in log


def test_workers_are_asked_and_told(workers: Host) -> None:
    registered = workers.celery("inspect", "registered", "--timeout", "10")
    queues = workers.celery("inspect", "active_queues", "--timeout", "10", "--json")
    said = workers.say("""
import socket
build = trigger_build("first")
reached(build, "finished")
node = f"build@{socket.gethostname()}"
reply = app.control.cancel_consumer("build:large", destination=[node], reply=True, timeout=10)
stats = app.control.inspect([node], timeout=10).stats()[node]
kept = trigger_build("kept", queue="build:large")
other = trigger_build("other")
reached(other, "finished")
before = row(kept)
app.control.add_consumer("build:large", destination=[node], reply=True, timeout=10)
reached(kept, "finished")
said = [reply[0][node], len(stats["pool"]["processes"]), before]
""")

    assert registered.count("builds.tasks.update_docs") == 2
    assert '"build:large"' in queues
    assert '"reindex"' in queues
    assert said == [{"ok": "no longer consuming from build:large"}, 1, ["triggered", None, 0]]


def test_beat_with_the_schedules_of_the_database(workers: Host) -> None:
    workers.beat()
    said = workers.say("""
from django_celery_beat.models import PeriodicTask
until(lambda: PeriodicTask.objects.count() >= 4)
unhealthy = trigger_build("unhealthy", seconds=60)
reached(unhealthy, "canceled")  # "building" may last for less than a look: beat sends the task that ends it at any time
said = [sorted(PeriodicTask.objects.values_list("name", "queue")), row(unhealthy)]
""")

    names = [
        "every-day-delete-old-queries", "often-finish-unhealthy-builds", "quarter-archive-builds", "weekly-resync",
    ]  # fmt: skip
    assert [each for each in said[0] if each[1]] == [[name, "web"] for name in names]
    assert said[1] == ["canceled", False, 1]


def test_messages_of_the_release_before_name_renamed_tasks(host: Host) -> None:
    with (host.folder / "docshost" / "worker.py").open("a") as module:
        module.write(RENAMED)
    host.workers(web=("-P", "prefork", "-c", "1", "-Q", "web"))

    said = host.say("said = app.send_task('search.tasks.old_name', ('a', 'b'), queue='web').get(timeout=60)")

    assert said == "a -> b"
