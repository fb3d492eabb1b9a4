"""``taskapp outbox``: tasks submitted in transactions of the user's own database."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from taskapp.cli.output import say, say_json, say_table
from taskapp.cli.target import chosen_app
from taskapp.errors.outbox import NotInOutbox
from taskapp.outbox.opening import DJANGO, open_store
from taskapp.urls import revealed

if TYPE_CHECKING:
    from taskapp.outbox.rows import ListedRow, OutboxStore


def _where(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name the outbox."""
    database = click.option("--database", help="Of a Django project: its alias in DATABASES.")
    url = click.option(
        "--url",
        help="Database with the outbox: postgresql://user:password@host/name. Default: TASKAPP_OUTBOX_URL, else the "
        "default database of the Django project.",
    )
    return url(database(command))


def _store(url: str | None, database: str | None) -> OutboxStore:
    if database is not None:
        if url is not None:
            raise click.UsageError("give either --url or --database")
        url = f"{DJANGO}{database}"
    return open_store(url or _configured_url())


def _configured_url() -> str | None:
    from taskapp.settings import get_settings

    return revealed(get_settings().outbox_url)


@click.group()
def outbox() -> None:
    """Queue, list and mend tasks submitted in transactions of your own database."""


@outbox.command()
@click.option("--url", help="Database: postgresql://user:password@host/name. Default: TASKAPP_OUTBOX_URL.")
def create(url: str | None) -> None:
    """Create the table, unless it exists. Django does that with its own migrations."""
    store = _store(url, None)
    if not hasattr(store, "create"):
        raise click.UsageError("Django creates the table: python manage.py migrate taskapp")
    store.create()
    say(f"the outbox at {store.name} is ready")


@outbox.command()
@_where
@click.option("--once", is_flag=True, help="Queue what waits now, then exit.")
def run(url: str | None, database: str | None, *, once: bool) -> None:
    """Queue what transactions have left behind, until stopped.

    Keeps running while the broker or the database is unreachable. Any number may run on one table.
    """
    from taskapp.logs.formatters import formatter
    from taskapp.outbox.relay import Relay
    from taskapp.settings import get_settings

    handler = logging.StreamHandler()
    handler.setFormatter(formatter(get_settings().log_format))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    store = _store(url, database)
    relay = Relay(chosen_app(), store)
    if once:
        count = relay.drain()
        say(f"queued {count} tasks")
        sys.exit(1 if store.backlog().waiting else 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: relay.stop())
    say(f"queueing tasks from the outbox at {store.name}")
    relay.run()


@outbox.command(name="list")
@_where
@click.option("--refused", is_flag=True, help="Only tasks that could not be queued.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Maximum to list.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def list_rows(url: str | None, database: str | None, limit: int, *, refused: bool, as_json: bool) -> None:
    """List tasks in the outbox, oldest first."""
    rows = _store(url, database).rows(refused_only=refused, limit=limit)
    if as_json:
        for row in rows:
            say_json({**row._asdict(), "created_at": _when(row)})
        return
    if not rows:
        say("no task in the outbox")
    headings = ("submitted at", "state", "task", "id", "queue", "size", "attempts", "error")
    say_table(headings, map(_cells, rows), kept=("id",), expendable=("size", "queue", "attempts"))


def _cells(row: ListedRow) -> tuple[object, ...]:
    state = "refused" if row.is_refused else "waiting"
    return (_when(row)[:19].replace("T", " "), state, row.task, row.id, row.queue, row.size, row.attempts, row.error)


def _when(row: ListedRow) -> str:
    return datetime.fromtimestamp(row.created_us / 1e6, UTC).isoformat(timespec="milliseconds")


@outbox.command()
@_where
@click.argument("ids", nargs=-1)
@click.option("--all", "all_of_them", is_flag=True, help="Every refused task.")
def retry(url: str | None, database: str | None, ids: tuple[str, ...], *, all_of_them: bool) -> None:
    """Let refused tasks wait again, once their cause is mended. Exits with 1 if an id is not among them."""
    if bool(ids) == all_of_them:
        raise click.UsageError("name the ids of refused tasks, or add --all")
    store = _store(url, database)
    if all_of_them:
        say(f"{store.retry(None)} tasks wait again")
        return
    for task_id in ids:
        if not store.retry([task_id]):
            raise NotInOutbox(task_id)
        say(f"{task_id} waits again")


@outbox.command()
@_where
@click.argument("ids", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def remove(url: str | None, database: str | None, ids: tuple[str, ...], *, yes: bool) -> None:
    """Delete refused tasks, which will never run. Exits with 1 if an id is not among them."""
    store = _store(url, database)
    if not yes:
        click.confirm(f"delete {len(ids)} tasks, which will never run?", abort=True)
    for task_id in ids:
        if not store.remove([task_id]):
            raise NotInOutbox(task_id)
        say(f"{task_id} deleted")


@outbox.command()
@_where
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--max-age", default=60.0, show_default=True, help="Seconds that the oldest task may have been waiting.")
def status(url: str | None, database: str | None, max_age: float, *, as_json: bool) -> None:
    """Show how many tasks wait, for how long, and how many were refused. Exits with 1 if that calls for action."""
    store = _store(url, database)
    backlog = store.backlog()
    shown = {**backlog._asdict(), "oldest_seconds": round(backlog.oldest_seconds, 1)}
    if as_json:
        say_json({"database": store.name, **shown})
    else:
        for name, value in {"database": store.name, **shown}.items():
            say(f"{name.replace('_', ' '):15} {value}")
    sys.exit(1 if backlog.refused or backlog.oldest_seconds > max_age else 0)
