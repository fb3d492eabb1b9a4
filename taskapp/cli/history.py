"""``taskapp history``: finished tasks in SQL."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import asdict

from taskapp.cli.engine import lent_by
from taskapp.cli.output import say, say_json, say_lines, say_table
from taskapp.cli.target import chosen_app
from taskapp.engine.completions import STATES, Finished
from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times.parsing import parse_duration, parse_instant
from taskapp.settings import get_settings

if TYPE_CHECKING:
    from taskapp.monitor.history import History

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # no generic before Click 8.3


class Length(ParamType):
    """A duration, converted to seconds."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the seconds."""
        try:
            return parse_duration(value)
        except BadSchedule:
            self.fail(f"{value!r} is not a duration; write it as 90d, 12h or 30m", param, ctx)


class TimeOption(ParamType):
    """A time, converted to Unix seconds: ISO 8601, UTC unless it names a zone, or a duration before now."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the Unix seconds."""
        try:
            return time() - parse_duration(value)
        except BadSchedule:
            pass
        try:
            return parse_instant(value)
        except BadSchedule:
            self.fail(f"{value!r} is not a time; write it as 2h or 30m (ago), or 2026-12-01T09:00", param, ctx)


@click.group()
def history() -> None:
    """Search finished tasks in SQL, and write them there.

    Nodes report every finished task if TASKAPP_HISTORY is true; TASKAPP_HISTORY_URL names the database.
    """


@contextmanager
def _opened() -> Iterator[History]:
    from taskapp.monitor.history import open_history

    yield open_history(get_settings())


@history.command()
def run() -> None:
    """Write finished tasks to SQL and delete old ones, until stopped.

    Keeps running while Redis or the database is unreachable. If you run two and one dies, the other takes over
    within 15 s.
    """
    app = chosen_app()
    from taskapp.logs.formatters import formatter
    from taskapp.monitor.history import Writer, open_history

    settings = get_settings()
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings.log_format))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    kept = open_history(settings)
    writer = Writer(kept, app.finished_tasks, settings.history_days)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: writer.stop())
    say(f"writing finished tasks to {kept.url}")
    writer.run()


@history.command()
@click.option("--type", "task_type", help="Only tasks of this type.")
@click.option("--state", "states", multiple=True, help=f"Only tasks in this state: {', '.join(STATES)}. Repeatable.")
@click.option("--queue", help="Only tasks of this queue.")
@click.option("--since", type=TimeOption(), help="Finished at this time or later: 2h (ago), or 2026-12-01T09:00 (UTC).")
@click.option("--until", type=TimeOption(), help="Finished before this time.")
@click.option("--text", help="Only tasks whose arguments contain this text.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1_000), help="Maximum to list.")
@click.option("--after", help="Continue after the previous page: the cursor it printed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines; the cursor of the next page goes to stderr.")
def search(
    task_type: str | None, states: tuple[str, ...], queue: str | None, since: float | None, until: float | None,
    text: str | None, limit: int, after: str | None, *, as_json: bool,
) -> None:  # fmt: skip
    """List finished tasks, newest first."""
    from taskapp.monitor.history import Query

    with _opened() as kept:
        page = kept.search(Query(task_type, states, queue, since, until, text), limit, after)
    if as_json:
        for one in page.tasks:
            say_json(_as_json(one))
    else:
        _print_table(page.tasks)
    if page.next:
        say(f"there may be more; continue with --after {page.next}", err=True)
    elif not as_json and not page.tasks:
        say("no matching finished tasks")


@history.command()
@click.argument("task_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def show(task_id: str, *, as_json: bool) -> None:
    """Show every recorded end of a task, newest first; a replayed task has several."""
    with _opened() as kept:
        found = kept.get(task_id)
    if not found:
        raise click.ClickException(f"no finished task {task_id!r}; it may not have ended yet, or may have been deleted")
    for one in found:
        if as_json:
            say_json(_as_json(one))
            continue
        for name, value in _as_json(one).items():
            if value not in ("", None):
                say_lines(value, head=f"{name.replace('_', ' '):12} ")


@history.command()
@click.option("--older-than", type=Length(), required=True, help="Delete tasks that finished longer ago: 90d.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def prune(older_than: float, *, yes: bool) -> None:
    """Delete old tasks, a thousand at a time."""
    with _opened() as kept:
        before = datetime.fromtimestamp(time() - older_than, UTC)
        if not yes:
            click.confirm(f"delete tasks that finished before {before:%Y-%m-%d %H:%M} UTC?", abort=True)
        gone = sum(iter(partial(kept.prune, older_than), 0))
    say(f"deleted {gone} finished tasks")


@history.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(*, as_json: bool) -> None:
    """Show how many tasks are stored and how many wait to be. Exits with 1 if any were lost on the way."""
    app = chosen_app()

    with _opened() as kept:
        rows, url = kept.count(), kept.url
    with lent_by(app.finished_tasks()) as finished:
        waiting = finished.waiting()
    shown = {"url": url, "kept": rows, "waiting": waiting.records, "dropped": waiting.dropped, "aside": waiting.aside}
    if as_json:
        say_json(shown)
    else:
        for name, value in shown.items():
            say(f"{name:8} {value}")
    sys.exit(1 if waiting.dropped or waiting.aside else 0)


def _as_json(one: Finished) -> dict[str, Any]:
    fields = asdict(one)
    del fields["finished_us"]
    shown = {"id": fields.pop("id"), "finished_at": _when(one.finished_at)}
    for name in ("sent_at", "started_at"):
        fields[name] = _when(fields[name])
    return {**shown, **fields}


def _when(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _print_table(found: list[Finished]) -> None:
    rows = []
    for one in found:
        ran = "" if one.run_seconds is None else f"{one.run_seconds:.3g} s"
        arguments = " ".join(text for text in (one.args, one.kwargs) if text not in ("", "()", "{}"))
        finished_at = datetime.fromtimestamp(one.finished_at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        last = one.error or one.result
        rows.append((finished_at, one.state, one.type, one.id, one.queue, ran, arguments, last))
    headings = ("finished at", "state", "task", "id", "queue", "ran", "arguments", "result or error")
    say_table(headings, rows, kept=("id",), expendable=("queue", "ran", "arguments"))
