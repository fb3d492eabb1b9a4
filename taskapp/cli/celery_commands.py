"""Additions to the commands of ``celery -A taskapp``: imports of the user's modules, checks, one-line errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from amqp.exceptions import AMQPError
from celery.exceptions import CeleryError, ImproperlyConfigured
from celery.platforms import LockFailed
from celery.utils.imports import load_extension_class_names, symbol_by_name
from click.core import ParameterSource
from click.exceptions import Exit
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from taskapp.cli.included import import_included
from taskapp.cli.steps import Steps
from taskapp.errors import TaskappError
from taskapp.errors.tasks import NoSuchTask
from taskapp.sanitize import sanitize_lines
from taskapp.settings import use_settings

LONG_RUNNING = ("worker", "beat", "flower", "events", "shell")
"""Commands for which a traceback helps more than a sentence, unless the error is ours."""
UNTIL_STOPPED = frozenset({"worker", "beat", "flower", "events"})
"""Commands that run until stopped; stopping them is a success."""
IMPORTING = frozenset({"call", "control", "events", "graph", "inspect", "result", "status"})
"""Commands that exchange messages with nodes but do not import task modules on their own."""
NO_REPLY = "No nodes replied within time constraint"
"""Celery's message when no node replies, whether or not the node exists."""


@contextmanager
def errors_in_one_line(context: click.Context) -> Iterator[None]:
    """Turn an error of ``context``'s command into a sentence without a traceback.

    Raises:
        click.ClickException: In place of the error.
    """
    try:
        yield
    except click.ClickException as error:
        nodes = context.params.get("destination")
        if error.message == NO_REPLY and nodes:
            app = context.find_root().params.get("app")
            given = app if isinstance(app, str) else str(getattr(app, "argument", "taskapp"))
            raise _replace_message(error, _no_reply_from(nodes, context.params.get("timeout"), given)) from error
        raise
    except KeyboardInterrupt:
        if context.info_name not in UNTIL_STOPPED:
            raise
        # Stopped while still starting: exit as the command's own signal handlers would.
        raise Exit(0) from None
    except Exception as error:
        sentence = _sentence(context, error)
        if not sentence:
            raise
        raise _shown(sentence) from error


def _sentence(context: click.Context, error: Exception) -> str:
    """Return the sentence to show for ``error``; empty if a traceback helps more."""
    if isinstance(error, TaskappError | ImproperlyConfigured):
        return str(error)
    if problem := _of_this_machine(context, error):
        return problem
    if context.info_name in LONG_RUNNING:
        return ""
    if isinstance(error, OperationalError | RedisError | AMQPError | OSError):
        return f"a server cannot be reached: {error}; check TASKAPP_BROKER_URL and TASKAPP_RESULT_URL"
    return f"{type(error).__name__}: {error}" if isinstance(error, KombuError | CeleryError) else ""


def _of_this_machine(context: click.Context, error: Exception) -> str:
    """Return the problem with a port or file given to a command; empty if the error has another cause."""
    if context.info_name == "flower":
        from taskapp.monitor.flower.command_line import why_not_started

        return why_not_started(error)
    if isinstance(error, LockFailed):
        return f"the pidfile cannot be used: {error}; choose another --pidfile"
    if not isinstance(error, OSError) or isinstance(error, ConnectionError) or not error.filename:
        return ""
    return f"{os.fsdecode(error.filename)!r} cannot be used: {error.strerror}; give another path"


def _shown(message: str) -> click.ClickException:
    return click.ClickException(sanitize_lines(message))


def _replace_message(error: click.ClickException, message: str) -> click.ClickException:
    error.message = sanitize_lines(message)  # type: ignore[misc]  # to keep its class and exit code
    return error


def _no_reply_from(nodes: str | Iterable[str], timeout: float | None, argument: str) -> str:
    names = nodes if isinstance(nodes, str) else ", ".join(nodes)
    within = f" within {timeout:g} s" if timeout else ""
    return f"no reply from {names}{within}; 'celery -A {argument} status' lists the nodes that answer"


def prepare(context: click.Context) -> None:
    """Import the modules that Celery's command needs to talk to nodes, and check the names it was given.

    Raises:
        click.ClickException: A queue, scheduler, task id or option does not exist.
    """
    with errors_in_one_line(context):
        use_settings(context.obj.app.settings)
    if context.info_name in IMPORTING:
        with errors_in_one_line(context):
            import_included(context.obj.app)
    if context.info_name == "call" and context.get_parameter_source("serializer") is ParameterSource.DEFAULT:
        # Celery's default is json whatever the app's serializer, and nodes of an app that signs refuse unsigned JSON.
        context.params["serializer"] = context.obj.app.conf.task_serializer
    check = CHECKS.get(context.info_name or "")
    if check is not None:
        with errors_in_one_line(context):
            check(context.obj.app, context.params)


def _check_queues(app: Any, params: Mapping[str, Any]) -> None:
    queue = params.get("queue")
    typed = [*(params.get("queues") or ()), *(params.get("exclude_queues") or ()), *([queue] if queue else ())]
    for name in typed:
        app.check_queue(name)


def _check_flower(_app: Any, params: Mapping[str, Any]) -> None:
    from taskapp.monitor.flower.command_line import check_options

    check_options(params["tornado_argv"])


def _check_scheduler(app: Any, params: Mapping[str, Any]) -> None:
    name = params.get("scheduler")
    if not name:
        return
    # As beat does before it looks for the scheduler: one in a Django app cannot be imported before Django is set up.
    app.loader.init_worker()
    names: Any = load_extension_class_names("celery.beat_schedulers")  # typed as something else
    try:
        symbol_by_name(name, aliases=dict(names))
    except (ImportError, AttributeError, ValueError) as error:
        remedy = "give it as package.module:Class, or omit the option to use taskapp's own"
        raise click.ClickException(f"no scheduler {name!r}: {error}; {remedy}") from error


def _check_result(app: Any, params: Mapping[str, Any]) -> None:
    from taskapp.monitor.task_state import State, task_state

    task_id, steps = params["task_id"], Steps("searched {} messages")
    state = task_state(task_id, app, steps)
    steps.end()
    if state.unreadable:
        raise click.ClickException(f"cannot read the result of the task {task_id!r}: {state.unreadable}")
    # A remark explains why the task may exist nonetheless.
    if state.state is State.UNKNOWN and not state.remark:
        raise NoSuchTask(task_id, app.settings.result_expires_seconds)


CHECKS: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "purge": _check_queues,
    "call": _check_queues,
    "beat": _check_scheduler,
    "flower": _check_flower,
    "result": _check_result,
}
