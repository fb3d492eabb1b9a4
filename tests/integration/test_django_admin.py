"""The pages in Django's admin, with Django's test client and a real Redis."""

from __future__ import annotations

import pytest

from tests.integration.django_projects import Project

ADMIN = """
INSTALLED_APPS+=['django.contrib.admin','django.contrib.auth','django.contrib.contenttypes','django.contrib.sessions','django.contrib.messages']
ROOT_URLCONF='proj.urls' ALLOWED_HOSTS=['*']
MIDDLEWARE=['django.contrib.sessions.middleware.SessionMiddleware','django.contrib.auth.middleware.AuthenticationMiddleware','django.contrib.messages.middleware.MessageMiddleware']
TEMPLATES=[{'BACKEND':'django.template.backends.django.DjangoTemplates','APP_DIRS':True,'OPTIONS':{'context_processors':['django.template.context_processors.request','django.contrib.auth.context_processors.auth','django.contrib.messages.context_processors.messages']}}]
"""
CLIENTS = """
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.contrib.auth.models import Permission, User
from django.test import Client

def client(*permissions):
    name = "-".join(permissions) or "nobody"
    user, _ = User.objects.get_or_create(username=name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions, content_type__app_label="taskapp"))
    made = Client()
    made.force_login(user)
    return made

BASE = "/admin/taskapp/task/"
nobody, reader, changer = client(), client("view_task"), client("view_task", "change_task")
"""


@pytest.fixture
def admin_shop(plain_shop: Project) -> Project:
    plain_shop.env |= {"PROJ_DB_FILE": str(plain_shop.directory / "db.sqlite3"), "PROJ_MORE": ADMIN}
    return plain_shop


def test_pages_show_tasks_letters_and_schedules_to_those_who_may_see_them(admin_shop: Project) -> None:
    admin_shop.node()

    said = admin_shop.say(f"""{CLIENTS}
failed = tasks.broken.delay("<b>why</b>")
failed.get(timeout=60, propagate=False)
blocked = [tasks.rated.delay() for _ in range(3)][-1]
from taskapp.monitor.task_state import State, task_state
from time import monotonic, sleep
until = monotonic() + 30
while task_state(blocked.id).state is not State.BLOCKED and monotonic() < until:
    sleep(0.05)
with proj.celery_app.schedules() as store:
    from taskapp.schedules.schedule import schedule_from
    when = {{"kind": "interval", "seconds": 90}}
    store.add(schedule_from({{"name": "nightly", "task": "shop.tasks.zone", "when": when}}))
def text(client, where):
    answer = client.get(BASE + where)
    return answer.status_code, answer.content.decode()
said = {{
    "codes": [[text(each, where)[0] for where in ("", "dead/", "schedules/")] for each in (Client(), nobody, reader)],
    "task": text(reader, "?id=" + failed.id)[1],
    "blocked": text(reader, "?id=" + blocked.id)[1],
    "unknown": text(reader, "?id=nosuch")[1],
    "dead": text(reader, "dead/")[1],
    "dead_changer": text(changer, "dead/")[1],
    "schedules": text(reader, "schedules/")[1],
    "id": failed.id,
    "index": reader.get("/admin/").content.decode(),
}}
""")

    assert said["codes"] == [[302] * 3, [403] * 3, [200] * 3]
    assert "shop.tasks.broken" in said["task"]
    assert "&lt;b&gt;why&lt;/b&gt;" in said["task"]
    assert "<b>why" not in said["task"]
    assert "<td>blocked</td>" in said["blocked"]
    assert "<th>Not before</th>" in said["blocked"]
    assert "the rate of shop.tasks.rated is used up, or paused" in said["blocked"]
    assert "No task with this id" in said["unknown"]
    assert said["id"] in said["dead"]
    assert ("Replay" in said["dead"], "Replay" in said["dead_changer"]) == (False, True)
    assert "nightly" in said["schedules"]
    assert "every 90 s" in said["schedules"]
    assert "/admin/taskapp/task/" in said["index"]


def test_only_the_permission_to_change_replays(admin_shop: Project) -> None:
    node = admin_shop.node()

    said = admin_shop.say(f"""{CLIENTS}
tasks.broken.delay("x").get(timeout=60, propagate=False)
def letters():
    with proj.celery_app.engine() as engine:
        return [letter.name for letter in engine.dead_letters.find(None, None, None, 10)]
[name] = letters()
said = [reader.post(BASE + "dead/", {{"letter": name}}).status_code, letters() == [name]]
answer = changer.post(BASE + "dead/", {{"letter": name}}, follow=True)
said += [answer.status_code, "sent again" in answer.content.decode()]
for wrong in (name, "nosuch/1", "x", ""):
    answer = changer.post(BASE + "dead/", {{"letter": wrong}}, follow=True)
    said.append("no longer a dead letter" in answer.content.decode())
changer.handler.enforce_csrf_checks = True
said.append(changer.post(BASE + "dead/", {{"letter": name}}).status_code)
""")

    assert said == [403, True, 200, True, True, True, True, True, 403]
    assert node.output().count("shop.tasks.broken") >= 2


def test_a_page_says_so_when_redis_is_away(admin_shop: Project) -> None:
    admin_shop.env["PROJ_BROKER"] = "redis://127.0.0.1:1"

    said = admin_shop.say(f"""{CLIENTS}
said = [reader.get(BASE + where).content.decode() for where in ("?id=1", "dead/", "schedules/")]
""")

    assert ["errornote" in text for text in said] == [True] * 3


def test_its_migrations_are_complete(admin_shop: Project) -> None:
    done = admin_shop.run("-m", "django", "makemigrations", "taskapp", "--check", "--dry-run")

    assert (done.returncode, "No changes" in done.stdout) == (0, True), done


def test_a_letter_whose_unique_key_is_taken_stays_and_the_page_says_why(admin_shop: Project) -> None:
    said = admin_shop.say(f"""{CLIENTS}
from taskapp.engine.dead_letters import DeadLetters
from taskapp.errors import KeyTaken
def refuse(*_, **__):
    raise KeyTaken("default/1", "<b>other</b>")
DeadLetters.replay = refuse
answer = changer.post(BASE + "dead/", {{"letter": "default/1"}}, follow=True)
said = [answer.status_code, answer.content.decode()]
""")

    assert said[0] == 200
    assert (
        said[1].count(
            "The letter default/1 stays dead: the task &lt;b&gt;other&lt;/b&gt; has its unique key; replay it"
        )
        == 1
    )
