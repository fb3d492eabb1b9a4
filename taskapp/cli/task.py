"""``taskapp task``: state and log lines of one task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.cli.output import say, say_block, say_json, say_lines
from taskapp.cli.steps import Steps
from taskapp.cli.target import chosen_app, own_command
from taskapp.engine.task_notes import LogLine, Progress
from taskapp.errors.tasks import NoSuchTask
from taskapp.monitor.task_state import State, TaskState, follow_log, log_lines, task_state
from taskapp.processes import stop_on_signals
from taskapp.sanitize import sanitize
from taskapp.settings import get_settings

COLOURS = {State.SUCCEEDED: "green", State.FAILED: "red", State.DEAD: "red", State.RUNNING: "cyan"}


@click.group()
def task() -> None:
    """Show the state and the log lines of one task, by its id."""


@task.command()
@click.argument("task_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--traceback", "with_traceback", is_flag=True, help="Show the traceback of the last error, too.")
def show(task_id: str, *, as_json: bool, with_traceback: bool) -> None:
    """Show the state of a task, and what it waits for.

    It is queued, delayed, blocked, parked, running, retrying, succeeded, failed, dead or cancelled: derived from the
    place of the task's message, its result and its notes. Exits with 1 if the id is unknown.
    """
    with _reaching():
        state = _state(task_id)
    if as_json:
        say_json(state.as_json())
    elif state.state is not State.UNKNOWN or state.unreadable or state.timeline or state.progress or state.log_lines:
        styled = click.style(str(state.state), fg=COLOURS.get(state.state), bold=True)
        say(_next(state), head=f"{'state':<10} {styled}")
        for field, value in _fields(state):
            say(value, head=f"{field:<10} ")
        if with_traceback and state.traceback:
            say_block(state.traceback)
    if state.state is State.UNKNOWN and not state.unreadable:
        raise NoSuchTask(task_id, get_settings().result_expires_seconds)


@task.command()
@click.argument("task_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Keep showing new lines until the task has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def logs(task_id: str, *, follow: bool, as_json: bool) -> None:
    """Show the last log lines of a task, up to TASKAPP_TASK_LOG_LINES.

    Stored are the lines a task logs through logging or prints, from its node's log level (-l INFO) up.
    """
    if follow:
        stop_on_signals()
    with _reaching():
        shown = 0
        for line in follow_log(task_id, chosen_app()) if follow else log_lines(task_id, chosen_app()):
            if as_json:
                say_json(_as_json(line))
            else:
                say_lines(line.text, head=f"{_when(line.at)} {sanitize(line.level):<8} ")
            shown += 1
        if not shown:
            say(_why_no_lines(task_id), err=True)


def _why_no_lines(task_id: str) -> str:
    """Return why a task has no log lines, and what to do.

    Raises:
        NoSuchTask: The id is unknown.
    """
    settings, state = get_settings(), _state(task_id)
    if state.state is State.UNKNOWN:
        raise NoSuchTask(task_id, settings.result_expires_seconds)
    if not settings.task_log_lines:
        return "no log lines: TASKAPP_TASK_LOG_LINES is 0, so that nodes store none"
    if not state.attempts and state.state not in (State.RUNNING, State.SUCCEEDED, State.FAILED, State.DEAD):
        return f"no log lines: the task has not run yet ({state.state})"
    return (
        "no log lines: the task has logged nothing that its node logs. Nodes store lines from their log level up, "
        "WARNING unless they are started with -l; for the lines at INFO, start them with -l INFO"
    )


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except (RedisError, OperationalError, ConnectionError) as error:
        message = f"cannot reach the broker or the results: {error}; check TASKAPP_BROKER_URL and TASKAPP_RESULT_URL"
        raise click.ClickException(message) from error


def _state(task_id: str) -> TaskState:
    steps = Steps("searched {} messages")
    try:
        return task_state(task_id, chosen_app(), steps)
    finally:
        steps.end()


def _fields(state: TaskState) -> Iterator[tuple[str, str]]:
    """Yield the known fields as pairs of name and text."""
    priority = "" if state.priority is None else f", priority {state.priority}"
    texts: list[tuple[str, Any]] = [
        ("remark", state.remark),
        ("result", state.unreadable and f"unreadable: {state.unreadable}"),
        ("task", state.task),
        ("id", state.id),
        ("queue", state.queue and state.queue + priority),
        ("node", state.node),
        ("attempts", state.attempts and str(state.attempts) + (f", {state.crashes} crashed" if state.crashes else "")),
        ("args", state.args),
        ("kwargs", state.kwargs),
        ("error", state.error),
        ("letter", state.letter and f"{state.letter} ({own_command()} dead show {state.letter})"),
        ("progress", state.progress and _progress(state.progress)),
        ("log", state.log_lines and f"{state.log_lines} lines ({own_command()} task logs)"),
    ]
    yield from ((name, text) for name, text in texts if text)
    for moment in state.timeline:
        detail = f" {moment.detail}" if moment.detail else ""
        yield "", f"{_when(moment.at)}  {moment.what}{detail}"


def _next(state: TaskState) -> str:
    return f", next at {_when(state.next_at)}" if state.next_at is not None else ""


def _progress(progress: Progress) -> str:
    done = f"{progress.done:,g}" if progress.total is None else f"{progress.done:,g} of {progress.total:,g}"
    share = f" ({progress.done / progress.total:.0%})" if progress.total else ""
    note = f", {progress.note}" if progress.note else ""
    return f"{done}{share}{note}, at {_when(progress.at)}"


def _when(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
    except (ValueError, OverflowError, OSError):
        return str(at)


def _as_json(line: LogLine) -> dict[str, Any]:
    return {name: value for name, value in line._asdict().items() if name != "position"}
