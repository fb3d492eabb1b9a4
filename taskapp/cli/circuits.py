"""``taskapp circuits``: circuit breakers of task types that are not closed."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from taskapp.cli.engine import engine
from taskapp.cli.output import say, say_json, say_table
from taskapp.cli.target import own_command
from taskapp.engine.circuits import Circuits


@click.group()
def circuits() -> None:
    """Show and close circuit breakers of task types."""


@circuits.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def list_(*, as_json: bool) -> None:
    """List the circuits that are open, or half-open: one task at a time is tried."""
    with engine() as lent:
        found = Circuits(lent.link, lent.prefix).read()
    if as_json:
        for one in found:
            say_json({**one._asdict(), "state": one.state})
        return
    rows = [
        (
            one.task, one.state, one.kind, str(one.times), f"{one.left_seconds:.0f} s" if one.left_seconds else "",
            datetime.fromtimestamp(one.since, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        )
        for one in found
    ]  # fmt: skip
    say_table(("task type", "state", "errors", "opened", "probe in", "since"), rows, kept=("task type",))
    if not rows:
        say("all circuits are closed")


@circuits.command()
@click.argument("task_type", metavar="TYPE")
def close(task_type: str) -> None:
    """Close the circuit of TYPE now, so that its tasks start again on all nodes."""
    with engine() as lent:
        if not Circuits(lent.link, lent.prefix).close(task_type):
            raise click.ClickException(f"the circuit of {task_type!r} is not open; see {own_command()} circuits list")
    say(f"{task_type}: closed; its tasks start again")
