"""Projects that use ``django-celery-beat`` and ``django-celery-results``."""

from __future__ import annotations

import json

import pytest

from tests.integration.django_projects import Project

pytest.importorskip("django_celery_beat", reason="does not allow this Django yet")
BEAT = "INSTALLED_APPS+=['django_celery_beat']"
RESULTS = "INSTALLED_APPS+=['django_celery_results']"
DB = "CELERY_RESULT_BACKEND='django-db'"
FILLING = """
from datetime import datetime, timezone
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django_celery_beat.models import *
nightly = CrontabSchedule.objects.create(minute="30", hour="3", day_of_week="1-5", timezone="Asia/Tokyo")
often = IntervalSchedule.objects.create(every=90, period="seconds")
once = ClockedSchedule.objects.create(clocked_time=datetime(2040, 1, 1, tzinfo=timezone.utc))
sun = SolarSchedule.objects.create(event="sunset", latitude=52.5, longitude=13.4)
new = PeriodicTask.objects.create
new(name="nightly", task="shop.tasks.report", crontab=nightly, args="[1]", kwargs='{"a": 2}',
    queue="emails", priority=7)
new(name="often", task="shop.tasks.zone", interval=often, enabled=False, expire_seconds=60, headers='{"x": "y"}',
    start_time=datetime(2030, 1, 1, tzinfo=timezone.utc))
new(name="once", task="shop.tasks.zone", clocked=once, one_off=True, expires=datetime(2041, 1, 1, tzinfo=timezone.utc))
new(name="evening", task="shop.tasks.zone", solar=sun)
said = 0
"""
IMPORT = ("-m", "taskapp", "-A", "proj", "schedules", "import", "--from-django-celery-beat")


@pytest.fixture
def beat_shop(plain_shop: Project) -> Project:
    plain_shop.env |= {"PROJ_DB_FILE": str(plain_shop.directory / "db.sqlite3"), "PROJ_MORE": BEAT}
    return plain_shop


def test_beat_sets_django_up_before_it_looks_for_the_scheduler(plain_shop: Project) -> None:
    scheduler = "django_celery_beat.schedulers:DatabaseScheduler"

    done = plain_shop.run("-m", "celery", "-A", "proj", "beat", "-S", scheduler, PROJ_MORE=BEAT)

    assert "no such table: django_celery_beat" in done.stderr


def test_periodic_tasks_are_imported_with_one_command(beat_shop: Project) -> None:
    beat_shop.say(FILLING)

    done = beat_shop.run(*IMPORT)

    assert (done.returncode, done.stderr) == (0, "")
    assert "added 4 schedules, 1 of them paused; skipped 0" in done.stdout
    exported = beat_shop.run("-m", "taskapp", "-A", "proj", "schedules", "export").stdout
    found = {form["name"]: form for form in map(json.loads, exported.splitlines())}
    nightly, often = found["nightly"], found["often"]
    assert (nightly["when"]["zone"], nightly["when"]["hour"], nightly["when"]["day_of_week"]) == (
        "Asia/Tokyo",
        "3",
        "1-5",
    )
    assert (nightly["args"], nightly["kwargs"], nightly["queue"], nightly["priority"]) == ([1], {"a": 2}, "emails", 7)
    assert (often["when"]["seconds"], often["paused"]) == (90, "disabled in django-celery-beat")
    assert often["options"] == {"expires": 60, "headers": {"x": "y"}}
    assert (often["start_at"], found["once"]["end_at"]) == (1893456000, 2240611200)
    assert (found["once"]["when"]["at"], found["once"]["max_runs"]) == (2208988800, 1)
    assert (found["evening"]["when"]["event"], found["evening"]["when"]["latitude"]) == ("sunset", 52.5)
    again = beat_shop.run(*IMPORT)
    assert (again.returncode, "4 periodic tasks cannot be used" in again.stderr) == (1, True)
    assert beat_shop.run(*IMPORT, "--replace").returncode == 0


def test_a_row_that_cannot_be_used_is_named_and_nothing_is_imported(beat_shop: Project) -> None:
    beat_shop.say(f"{FILLING}\nPeriodicTask.objects.filter(name='once').update(args='[')")

    done = beat_shop.run(*IMPORT)

    assert done.returncode == 1
    assert "'once': " in done.stderr
    assert "args" in done.stderr
    assert "nothing imported; 1 periodic task cannot be used" in done.stderr
    assert beat_shop.run("-m", "taskapp", "-A", "proj", "schedules", "export").stdout == ""


def test_a_project_without_its_tables_is_told_so(plain_shop: Project) -> None:
    done = plain_shop.run(*IMPORT)

    assert (done.returncode, "'django_celery_beat' is not in INSTALLED_APPS" in done.stderr) == (1, True)


def test_results_in_the_project_s_database_stay_usable(plain_shop: Project) -> None:
    plain_shop.env |= {
        "PROJ_DB_FILE": str(plain_shop.directory / "db.sqlite3"),
        "PROJ_MORE": f"{RESULTS} {DB} CELERY_RESULT_EXTENDED=True",
    }
    plain_shop.run("-m", "django", "migrate")
    plain_shop.node("-c", "1")

    said = plain_shop.say("""
from django_celery_results.models import TaskResult
zone = tasks.zone.delay()
said = [zone.get(timeout=60)[0], TaskResult.objects.get(task_id=zone.id).status]
""")

    assert said == ["Europe/Berlin", "SUCCESS"]
    assert "taskapp.W004" in plain_shop.run("-m", "django", "check").stderr


def test_a_store_that_the_project_lacks_is_refused_in_one_line(plain_shop: Project) -> None:
    done = plain_shop.run("-m", "celery", "-A", "proj", "worker", PROJ_MORE=DB)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "CELERY_RESULT_BACKEND is 'django-db'" in done.stderr
    assert "add 'django_celery_results' to INSTALLED_APPS" in done.stderr


@pytest.mark.parametrize("store", ["django-db", "django-cache"])
def test_coroutines_keep_their_results_in_the_project_s_database(plain_shop: Project, store: str) -> None:
    tables = "{'default':{'BACKEND':'django.core.cache.backends.db.DatabaseCache','LOCATION':'kept'}}"
    plain_shop.env |= {
        "PROJ_DB_FILE": str(plain_shop.directory / "db.sqlite3"),
        "PROJ_MORE": f"{RESULTS} CELERY_RESULT_BACKEND='{store}' CACHES={tables}",
    }
    plain_shop.run("-m", "django", "migrate")
    plain_shop.run("-m", "django", "createcachetable")
    plain_shop.node("-c", "1")

    said = plain_shop.say("""
from celery import chord
ends = [tasks.ends.delay(how) for how in ("returns", "raises", "retries")]
both = chord([tasks.ends.s("returns"), tasks.ends.s("returns")], tasks.ends_all.s()).delay()
ends.append(tasks.ends.app.send_task("shop.tasks.ends", ("returns", 1)))
for end in ends + [both]:
    end.get(timeout=60, propagate=False)
said = [[end.state, str(end.result)] for end in ends + [both]]
""")

    refused = "ends() takes 2 positional arguments but 3 were given"
    assert said[:2] == [["SUCCESS", "done"], ["FAILURE", "no"]]
    assert said[2:] == [["SUCCESS", "done"], ["FAILURE", refused], ["SUCCESS", "donedone"]]
