"""What taskapp adds to the commands of ``celery -A taskapp``: the user's modules, checks, errors in one line."""

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
from taskapp.errors import TaskappError, UnknownQueue
from taskapp.errors.tasks import NoSuchTask
from taskapp.sanitize import sanitize_lines
from taskapp.settings import get_settings

LONG_RUNNING = ("worker", "beat", "flower", "events", "shell")
"""Commands of which a traceback tells more than a sentence, unless the error is one of ours."""
UNTIL_STOPPED = frozenset({"worker", "beat", "flower", "events"})
"""Commands that run until they are told to stop; doing so is their success."""
IMPORTING = frozenset({"call", "control", "events", "graph", "inspect", "result", "status"})
"""Commands that send to nodes or read what they sent, and of themselves import no module of tasks."""
NO_REPLY = "No nodes replied within time constraint"
"""Celery's message when no node replies, whether or not the node exists."""


@contextmanager
def errors_in_one_line(context: click.Context) -> Iterator[None]:
    """Show an error of ``context``'s command as a sentence, without a traceback.

    Raises:
        click.ClickException: In place of it.
    """
    try:
        yield
    except click.ClickException as error:
        asked = context.params.get("destination")
        if error.message == NO_REPLY and asked:
            raise _replace_message(error, _no_reply_of(asked, context.params.get("timeout"))) from error
        raise
    except KeyboardInterrupt:
        if context.info_name not in UNTIL_STOPPED:
            raise
        # Told to stop while it was still starting: what the command's own handlers would have answered.
        raise Exit(0) from None
    except Exception as error:
        sentence = _sentence(context, error)
        if not sentence:
            raise
        raise _shown(sentence) from error


def _sentence(context: click.Context, error: Exception) -> str:
    """Return what ``context``'s command says in place of a traceback; the empty string: the traceback tells more."""
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
    """Return what is wrong with a port or a file that a command was given; the empty string: something else is."""
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


def _no_reply_of(asked: str | Iterable[str], timeout: float | None) -> str:
    names = asked if isinstance(asked, str) else ", ".join(asked)
    within = f" within {timeout:g} s" if timeout else ""
    return f"no reply from {names}{within}; 'celery -A taskapp status' names the nodes that answer"


def prepare(context: click.Context) -> None:
    """Import what a command of Celery's needs to be understood by nodes, and make sure that what was typed exists.

    Raises:
        click.ClickException: It does not.
    """
    if context.info_name in IMPORTING:
        with errors_in_one_line(context):
            import_included(context.obj.app)
    if context.info_name == "call" and context.get_parameter_source("serializer") is ParameterSource.DEFAULT:
        # Celery's default is json, whatever the app is set up to send, and nodes of one that signs refuse that.
        context.params["serializer"] = context.obj.app.conf.task_serializer
    check = CHECKS.get(context.info_name or "")
    if check is not None:
        with errors_in_one_line(context):
            check(context.obj.app, context.params)


def _check_queues(app: Any, params: Mapping[str, Any]) -> None:
    known = app.amqp.queues
    queue = params.get("queue")
    typed = [*(params.get("queues") or ()), *(params.get("exclude_queues") or ()), *([queue] if queue else ())]
    for name in typed:
        if name not in known:
            raise UnknownQueue(name, known)


def _check_flower(_app: Any, params: Mapping[str, Any]) -> None:
    from taskapp.monitor.flower.command_line import check_options

    check_options(params["tornado_argv"])


def _check_scheduler(_app: Any, params: Mapping[str, Any]) -> None:
    name = params.get("scheduler")
    if not name:
        return
    names: Any = load_extension_class_names("celery.beat_schedulers")  # typed as something else
    try:
        symbol_by_name(name, aliases=dict(names))
    except (ImportError, AttributeError, ValueError) as error:
        remedy = "give it as package.module:Class, or leave it out for taskapp's own"
        raise click.ClickException(f"no scheduler {name!r}: {error}; {remedy}") from error


def _check_result(app: Any, params: Mapping[str, Any]) -> None:
    from taskapp.monitor.task_state import State, task_state

    task_id, steps = params["task_id"], Steps("searched {} messages")
    state = task_state(task_id, app, steps)
    steps.end()
    if state.unreadable:
        raise click.ClickException(f"the result of the task {task_id!r} cannot be read: {state.unreadable}")
    # A remark says why it may be there all the same.
    if state.state is State.UNKNOWN and not state.remark:
        raise NoSuchTask(task_id, get_settings().result_expires_seconds)


CHECKS: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "purge": _check_queues,
    "call": _check_queues,
    "beat": _check_scheduler,
    "flower": _check_flower,
    "result": _check_result,
}
