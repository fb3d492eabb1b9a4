"""``taskapp limits``: show and change, while nodes run, how many tasks may wait in a queue."""

from __future__ import annotations

import click

from taskapp.app.resources import Engine
from taskapp.cli.engine import engine, require_queue
from taskapp.cli.output import say, say_json, say_table
from taskapp.cli.target import chosen_app, own_command
from taskapp.engine.queue_limits import QueueLimits
from taskapp.engine.snapshot import read_snapshot

SETTING = "TASKAPP_QUEUE_LIMITS"


@click.group()
def limits() -> None:
    """Show and change how many tasks may wait in a queue.

    What is set here applies at once to every submit, wins over TASKAPP_QUEUE_LIMITS and stays until it is cleared.
    """


@limits.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def list_(*, as_json: bool) -> None:
    """List the limits of queues."""
    with engine() as lent:
        found = _limits(lent)
        waiting = _waiting(lent, tuple(found))
    rows = [(queue, limit, waiting[queue], origin) for queue, (limit, origin) in sorted(found.items())]
    if as_json:
        for queue, limit, number, origin in rows:
            say_json({"queue": queue, "limit": limit or None, "waiting": number, "from": origin})
        return
    shown = [(queue, f"{limit:,}" if limit else "none", f"{number:,}", origin) for queue, limit, number, origin in rows]
    say_table(("queue", "limit", "waiting", "from"), shown, kept=("queue",))
    if not rows:
        say(f"no queue has a limit; set one: {own_command()} limits set QUEUE NUMBER")


@limits.command("set")
@click.argument("queue")
@click.argument("limit", type=click.IntRange(min=0, max=10**15))
def set_(queue: str, limit: int) -> None:
    """Let at most LIMIT tasks wait in QUEUE; 0 lifts the limit."""
    with engine() as lent:
        require_queue(queue, _waiting(lent, ()))
        QueueLimits(lent.link, lent.prefix).set(queue, limit)
    say(f"{queue}: at most {limit:,} tasks may wait" if limit else f"{queue}: any number of tasks may wait")


@limits.command()
@click.argument("queue")
def clear(queue: str) -> None:
    """Let TASKAPP_QUEUE_LIMITS decide again about QUEUE."""
    with engine() as lent:
        if not QueueLimits(lent.link, lent.prefix).clear(queue):
            raise click.ClickException(f"no limit is set for the queue {queue!r}; see {own_command()} limits list")
        limit = _limits(lent).get(queue)
    say(f"{queue}: at most {limit[0]:,} tasks may wait, as {SETTING} says" if limit else f"{queue}: no limit")


def _limits(lent: Engine) -> dict[str, tuple[int, str]]:
    """Return limit and origin by queue."""
    declared = {queue: (limit, SETTING) for queue, limit in chosen_app().settings.queue_limit_table.items()}
    return declared | {queue: (limit, "set") for queue, limit in QueueLimits(lent.link, lent.prefix).read().items()}


def _waiting(lent: Engine, queues: tuple[str, ...]) -> dict[str, int]:
    """Return the number of waiting messages by queue: ``queues``, and all that have been used."""
    return {one.name: one.depth + one.delayed for one in read_snapshot(lent.link, lent.prefix, queues).queues}
