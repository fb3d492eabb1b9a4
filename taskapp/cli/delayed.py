"""``taskapp delayed``: list, cancel and reschedule delayed tasks."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from taskapp.cli.engine import engine, require_queue
from taskapp.cli.output import say, say_json, say_table
from taskapp.cli.target import own_command


@click.group()
def delayed() -> None:
    """List, cancel and reschedule delayed tasks.

    Tasks are delayed if they were submitted with a countdown or an eta, or wait for a retry.
    """


@delayed.command("list")
@click.option("--queue", help="Only tasks of this queue.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(min=1), help="Maximum to list per queue.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def list_(queue: str | None, limit: int, *, as_json: bool) -> None:
    """List the delayed tasks of each queue, soonest first."""
    with engine() as lent:
        counts = lent.delayed.count()
        require_queue(queue, counts)
        found = [
            one for name in counts if queue in (None, name) for one in lent.delayed.soonest(name, limit)
        ]  # fmt: skip
    if as_json:
        for one in found:
            say_json(one._asdict())
        return
    say_table(
        ("id", "task", "queue", "priority", "due at"),
        [(one.id, one.task, one.queue, one.priority, _when(one.due_at)) for one in found],
        kept=("id",),
        expendable=("priority", "queue"),
    )
    total = counts.get(queue, 0) if queue else sum(counts.values())
    say(f"{len(found)} of {total} delayed tasks" if total else "no delayed tasks")


@delayed.command()
@click.argument("task_id")
def cancel(task_id: str) -> None:
    """Cancel a delayed task permanently."""
    with engine() as lent:
        if not lent.delayed.cancel(task_id):
            raise _not_there(task_id)
    say(f"cancelled {task_id}")


@delayed.command()
@click.argument("task_id")
@click.argument("seconds", type=click.FloatRange(min=0))
def reschedule(task_id: str, seconds: float) -> None:
    """Make a delayed task due in SECONDS from now."""
    with engine() as lent:
        if not lent.delayed.reschedule(task_id, seconds):
            raise _not_there(task_id)
    say(f"{task_id} runs in {seconds:g} s")


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def _not_there(task_id: str) -> click.ClickException:
    return click.ClickException(f"no delayed task {task_id!r}; '{own_command()} delayed list' names them")
