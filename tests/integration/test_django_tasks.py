"""Django's own tasks on nodes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskapp.django.priorities import level_of
from tests.integration.django_projects import Project

ENDING = """
from datetime import timedelta
from django.utils import timezone
from django_tasks.exceptions import TaskResultDoesNotExist, TaskResultMismatch
from shop import jobs

def ended(result, within_seconds=60):
    until = time.monotonic() + within_seconds
    while not result.is_finished and time.monotonic() < until:
        time.sleep(0.05)
        result.refresh()
    return result

def told(result):
    error = result.errors[0] if result.errors else None
    times = (result.enqueued_at, result.started_at, result.last_attempted_at, result.finished_at)
    known = [time for time in times if time is not None]
    return {
        "status": result.status, "value": result._return_value, "attempts": result.attempts,
        "workers": result.worker_ids, "error": error and error.exception_class_path,
        "text": error and error.traceback.splitlines()[-1],
        "in_order": known == sorted(known) and len(known),
    }
"""

EXITED = (
    "taskapp.errors.TaskExited: the task raised SystemExit(3), which would end the whole worker; "
    "raise another exception instead"
)


def test_functions_and_coroutines_run_and_tell_their_results(plain_shop: Project) -> None:
    node = plain_shop.node()

    said = plain_shop.say(f"""{ENDING}
said = [told(ended(task.enqueue(*args))) for task, args in (
    (jobs.double, [4]), (jobs.adouble, [4]), (jobs.attempt, []), (jobs.fail, ["x"]), (jobs.afail, ["y"]),
    (jobs.unserializable, []), (jobs.leave, []),
)]
""")

    node_name = said[0]["workers"][0]
    usual = {"attempts": 1, "workers": [node_name], "in_order": 4}
    values = [each.pop("value") for each in said]
    assert values[:2] == [8, [8, "on a loop"]]
    assert values[2][0] == 1
    assert values[2][2:] == ["RUNNING", [node_name]]
    good = {"status": "SUCCESSFUL", "error": None, "text": None, **usual}
    assert said[:3] == [good] * 3
    failed = {(each["error"], each["text"]) for each in said[3:] if each["status"] == "FAILED"}
    assert failed == {
        ("builtins.ValueError", "ValueError: x"), ("builtins.LookupError", "LookupError: y"),
        ("builtins.TypeError", "TypeError: Unsupported type: <class 'object'>"),
        ("taskapp.errors.TaskExited", EXITED),
    }  # fmt: skip
    assert all(usual.items() <= each.items() for each in said[3:]), said
    log = node.output()
    assert log.count("state=RUNNING") == log.count("state=SUCCESSFUL") + log.count("state=FAILED") == 7
    assert "Task shop.jobs.double[" in log


def test_a_task_is_ready_then_running_and_its_kind_is_checked(plain_shop: Project) -> None:
    said = plain_shop.say(f"""{ENDING}
result = jobs.wait.using(priority=-30).enqueue("go")
said = [result.status, jobs.wait.get_result(result.id) == result]
for wrong in (lambda: jobs.double.get_result(result.id), lambda: jobs.wait.get_result("no-such-id"),
              lambda: jobs.wait.get_result(tasks.zone.delay().id)):
    try:
        wrong()
    except (TaskResultMismatch, TaskResultDoesNotExist) as error:
        said.append(type(error).__name__)
with open("id", "w") as file:
    file.write(result.id)
""")
    assert said == ["READY", True, "TaskResultMismatch", "TaskResultDoesNotExist", "TaskResultDoesNotExist"]
    plain_shop.node()

    said = plain_shop.say(f"""{ENDING}
result = jobs.wait.get_result(open("id").read())
while result.status == "READY" or result.started_at is None:  # claimed, and not begun
    result.refresh()
said = [result.status, result.attempts, result.task.priority, result.started_at is not None]
open("go", "w").close()
said.append(ended(result).status)
""")

    assert said == ["RUNNING", 1, -30, True, "SUCCESSFUL"]


def test_a_deferred_task_waits_and_a_revoked_one_has_failed(plain_shop: Project) -> None:
    plain_shop.node()

    said = plain_shop.say(f"""{ENDING}
soon = jobs.double.using(run_after=timezone.now() + timedelta(seconds=1.5)).enqueue(1)
late = jobs.double.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(2)
proj.celery_app.control.revoke(late.id)
late.refresh()
ended(soon)
said = [soon.finished_at >= soon.task.run_after, late.is_finished, told(late)["error"]]
""")

    assert said == [True, True, "celery.exceptions.TaskRevokedError"]


def test_an_attempt_that_died_is_counted(plain_shop: Project) -> None:
    plain_shop.node(TASKAPP_LEASE_SECONDS="3")
    plain_shop.node(name="w2", TASKAPP_LEASE_SECONDS="3")

    said = plain_shop.say(f"{ENDING}\nsaid = told(ended(jobs.attempt.enqueue(True)))")

    assert (said["status"], said["value"][0], said["attempts"]) == ("SUCCESSFUL", 2, 2)
    assert said["workers"][0] == "unknown"


def test_queues_and_priorities_are_those_of_the_app(plain_shop: Project) -> None:
    order = plain_shop.say(f"""{ENDING}
from django.core.management import call_command
results = {{p: jobs.double.using(priority=p).enqueue(p) for p in (-100, 0, 100, -1, 1)}}
mail = jobs.double.using(backend="others", queue_name="emails").enqueue(7)
channel = proj.celery_app.connection().default_channel
said = [channel._size("celery"), channel._size("emails"), mail.backend, mail.task.queue_name]
with open("ids", "w") as file:
    json.dump({{p: result.id for p, result in results.items()}}, file)
""")
    assert order == [5, 1, "others", "emails"]
    plain_shop.node("-c", "1", "-Q", "celery,emails")

    said = plain_shop.say(f"""{ENDING}
found = {{p: ended(jobs.double.get_result(id)) for p, id in json.load(open("ids")).items()}}
said = sorted(found, key=lambda p: found[p].started_at)
""")

    assert said == ["100", "1", "0", "-1", "-100"]


@pytest.mark.parametrize("path", ["shop.jobs.not_a_task", "shop.jobs.plain", "os.system", "shop.jobs.nosuch", "no", 5])
def test_only_decorated_functions_run(plain_shop: Project, path: Any) -> None:
    plain_shop.node()

    said = plain_shop.say(f"""
result = proj.celery_app.tasks["taskapp.django.run"].delay({path!r}, ["touch ran"], {{}}, {{}})
result.get(timeout=60, propagate=False)
said = [result.state, type(result.result).__name__, str(result.result)]
""")

    assert said[:2] == ["FAILURE", "NotADjangoTask"]
    assert repr(path) in said[2]
    assert "taskapp dead replay" in said[2]
    assert not (plain_shop.directory / "ran").exists()


def test_what_cannot_be_queued_is_refused_where_it_is_enqueued(plain_shop: Project) -> None:
    said = plain_shop.say(f"""{ENDING}
import asyncio
said = []
for wrong in (
    lambda: jobs.double.enqueue(object()),
    lambda: jobs.double.using(queue_name="emails"),
    lambda: jobs.double.using(priority=101),
    lambda: asyncio.run(jobs.double.aenqueue(object())),
):
    try:
        wrong()
    except Exception as error:
        said.append(type(error).__name__)
said += [asyncio.run(jobs.adouble.aenqueue(1)).status, proj.celery_app.connection().default_channel._size("celery")]
""")

    assert said == ["TypeError", "InvalidTaskError", "InvalidTaskError", "TypeError", "READY", 1]


CHECKS = {
    "TASKS['default']['OPTIONS']={'ap':'proj'}": ["E001", "unknown key 'ap'; did you mean 'app'?"],
    "TASKS['default']['ENQUEUE_ON_COMMIT']=True": ["E001", "ENQUEUE_ON_COMMIT"],
    "TASKS['default']['OPTIONS']={'app':'nosuch'}": ["E002", "cannot load 'nosuch'"],
    "TASKS['default']['OPTIONS']={'app':'json:dumps'}": ["E002", "`from taskapp import Celery`"],
    "INSTALLED_APPS=['shop','django_tasks']": ["W003", "INSTALLED_APPS"],
    "CELERY_RESULT_EXTENDED=False": ["W004", "result_extended"],
    "TASKS['default']['QUEUES']=['nobody']": ["W005", "-Q nobody"],
    "CELERY_TASK_CREATE_MISSING_QUEUES=False TASKS['default']['QUEUES']=['nobody']": ["E006", "no queue 'nobody'"],
}  # fmt: skip


@pytest.mark.quick("E001*", "W005*")
@pytest.mark.parametrize("change", CHECKS, ids=[" ".join(each) for each in CHECKS.values()])
def test_a_wrong_entry_is_named_by_the_system_checks(plain_shop: Project, change: str) -> None:
    identity, text = CHECKS[change]

    done = plain_shop.run("-m", "django", "check", PROJ_MORE=change)

    assert f"taskapp.{identity}" in done.stderr, done
    assert text in done.stderr


def test_a_right_entry_passes_the_system_checks(plain_shop: Project) -> None:
    done = plain_shop.run("-m", "django", "check")

    assert (done.returncode, "taskapp.E" in done.stderr) == (0, False), done.stderr


def test_priorities_keep_their_order_and_their_sign() -> None:
    levels = [level_of(priority) for priority in range(-100, 101)]

    assert levels == sorted(levels)
    assert {*levels} == set(range(10))
    assert [level_of(priority) for priority in (-100, -1, 0, 1, 100)] == [0, 3, 4, 5, 9]


def test_history_and_commands_show_the_function(plain_shop: Project) -> None:
    plain_shop.node()
    task_id = plain_shop.say(f"{ENDING}\nsaid = ended(jobs.fail.enqueue('why')).id")

    shown = json.loads(plain_shop.run("-m", "taskapp", "-A", "proj", "task", "show", task_id, "--json").stdout)

    assert shown["args"] == "('why',)"


@pytest.mark.slow
def test_tasks_run_over_rabbitmq_with_results_in_redis(plain_shop: Project, rabbitmq_url: str) -> None:
    more = f"CELERY_RESULT_BACKEND={plain_shop.redis.url!r}"
    plain_shop.env |= {"PROJ_BROKER": rabbitmq_url, "PROJ_MORE": more}
    plain_shop.node()

    said = plain_shop.say(f"""{ENDING}
def value(result, within_seconds=60):
    until = time.monotonic() + within_seconds
    while time.monotonic() < until:
        try:
            if ended(result).is_finished:
                return told(result)
        except TaskResultDoesNotExist:  # it waits, where the broker does not show it
            time.sleep(0.05)
said = [value(task.enqueue(*args)) for task, args in ((jobs.double, [4]), (jobs.adouble, [4]), (jobs.fail, ["x"]))]
""")

    assert [each["status"] for each in said] == ["SUCCESSFUL", "SUCCESSFUL", "FAILED"]
    assert [each["attempts"] for each in said] == [1, 1, 1]
    assert (said[0]["value"], said[2]["error"]) == (8, "builtins.ValueError")
