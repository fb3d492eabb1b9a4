"""System checks of an entry in ``TASKS``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from taskapp.django.tasks_api import DEFAULT_QUEUE_NAME
from taskapp.errors import TaskappError, did_you_mean
from taskapp.transport.transport import is_over_redis

PARAMS = ("BACKEND", "QUEUES", "OPTIONS")
OPTIONS = ("app",)


def examine(backend: Any) -> Iterator[checks.CheckMessage]:
    """Yield what is wrong with ``backend`` and its app."""
    where = f"TASKS[{backend.alias!r}]"
    for given, known, place in ((backend.params, PARAMS, where), (backend.options, OPTIONS, f"{where}['OPTIONS']")):
        for name in (name for name in given if name not in known):
            yield checks.Error(
                f"{place} has the unknown key {name!r}{did_you_mean(name, known)}", hint="Remove it: it does nothing.",
                id="taskapp.E001",
            )  # fmt: skip
    try:
        conf = backend.app.conf
        declared = set(backend.app.amqp.queues)
    except (ImproperlyConfigured, TaskappError) as error:
        yield checks.Error(str(error), id="taskapp.E002")
        return
    yield from _results(conf, where)
    yield from _queues(backend, conf, declared, where)
    if not apps.is_installed("taskapp.django"):
        yield checks.Warning(
            "'taskapp.django' is not in INSTALLED_APPS",
            hint="Add it: a node that imports no module with @task functions would not have their task types.",
            id="taskapp.W003",
        )


def _results(conf: Any, where: str) -> Iterator[checks.CheckMessage]:
    setting = ""
    if not is_over_redis(conf.result_backend or conf.broker_url):
        setting = "result_backend"  # other stores keep arguments as text
    elif not conf.result_extended:
        setting = "result_extended"
    if setting:
        yield checks.Warning(
            f"{where}: with this {setting}, get_result() does not find tasks that have ended",
            hint="Keep results in Redis, with result_extended.", id="taskapp.W004",
        )  # fmt: skip


def _queues(backend: Any, conf: Any, declared: set[str], where: str) -> Iterator[checks.CheckMessage]:
    for name in sorted(set(backend.queues) - declared - {DEFAULT_QUEUE_NAME}):
        if conf.task_create_missing_queues:
            yield checks.Warning(
                f"{where}['QUEUES']: the app declares no queue {name!r}",
                hint=f"Add it to task_queues, or start nodes with -Q {name}: no other node takes its tasks.",
                id="taskapp.W005",
            )
        else:
            yield checks.Error(
                f"{where}['QUEUES']: the app has no queue {name!r}{did_you_mean(name, declared)}",
                hint="Add it to task_queues or TASKAPP_QUEUES.", id="taskapp.E006",
            )  # fmt: skip
