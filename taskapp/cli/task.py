"""``taskapp task``: where one task stands, and what it logs."""

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
from taskapp.engine.task_notes import LogLine, Progress
from taskapp.errors.tasks import NoSuchTask
from taskapp.monitor.task_state import State, TaskState, follow_log, log_lines, task_state
from taskapp.processes import stop_on_signals
from taskapp.sanitize import sanitize
from taskapp.settings import get_settings

COLOURS = {State.SUCCEEDED: "green", State.FAILED: "red", State.DEAD: "red", State.RUNNING: "cyan"}


@click.group()
def task() -> None:
    """Show where one task stands, and what it logs. A task is named by its id."""


@task.command()
@click.argument("task_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--traceback", "with_traceback", is_flag=True, help="Show the traceback of the last error, too.")
def show(task_id: str, *, as_json: bool, with_traceback: bool) -> None:
    """Show the state of a task: queued, delayed, parked, running, retrying, succeeded, failed, dead or cancelled.

    It comes from where the task's message is, from its result and from what it noted. Exit code 1 when nobody knows it.
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
@click.option("-f", "--follow", is_flag=True, help="Go on showing lines as they come, until the task has ended.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def logs(task_id: str, *, follow: bool, as_json: bool) -> None:
    """Show the last log lines of a task, as many as TASKAPP_TASK_LOG_LINES.

    Kept is what a task logs through logging or prints, at the level its node logs at (-l INFO) or above.
    """
    if follow:
        stop_on_signals()
    with _reaching():
        shown = 0
        for line in follow_log(task_id) if follow else log_lines(task_id):
            if as_json:
                say_json(_as_json(line))
            else:
                say_lines(line.text, head=f"{_when(line.at)} {sanitize(line.level):<8} ")
            shown += 1
        if not shown and _state(task_id).state is State.UNKNOWN:
            raise NoSuchTask(task_id, get_settings().result_expires_seconds)


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except (RedisError, OperationalError, ConnectionError) as error:
        message = f"the broker or the results cannot be reached: {error}; check TASKAPP_BROKER_URL"
        raise click.ClickException(message) from error


def _state(task_id: str) -> TaskState:
    looked_at = Steps("looked at {} messages")
    try:
        return task_state(task_id, on_step=looked_at)
    finally:
        looked_at.end()


def _fields(state: TaskState) -> Iterator[tuple[str, str]]:
    """Yield what is known, by its name."""
    priority = "" if state.priority is None else f", priority {state.priority}"
    texts: list[tuple[str, Any]] = [
        ("remark", state.remark),
        ("result", state.unreadable and f"cannot be read: {state.unreadable}"),
        ("task", state.task),
        ("id", state.id),
        ("queue", state.queue and state.queue + priority),
        ("node", state.node),
        ("attempts", state.attempts and str(state.attempts) + (f", {state.crashes} crashed" if state.crashes else "")),
        ("args", state.args),
        ("kwargs", state.kwargs),
        ("error", state.error),
        ("letter", state.letter and f"{state.letter} (taskapp dead show {state.letter})"),
        ("progress", state.progress and _progress(state.progress)),
        ("log", state.log_lines and f"{state.log_lines} lines (taskapp task logs)"),
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
