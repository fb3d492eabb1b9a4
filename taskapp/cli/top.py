"""``taskapp top``: a live screen of queues, nodes and task types."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from taskapp.cli.output import say_json
from taskapp.cli.target import app_name, chosen_app
from taskapp.extras import require
from taskapp.monitor.rates import Look, rates_json
from taskapp.processes import sleep_unless_interrupted, stop_on_signals
from taskapp.sanitize import sanitize

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.option(
    "--every", "every_seconds", default=2.0, show_default=True, type=click.FloatRange(0.2, 60.0),
    help="Seconds between refreshes; rates cover that interval.",
)  # fmt: skip
@click.option(
    "--once", is_flag=True, help="Print one screen after one interval, then exit; the default without a terminal."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object after one interval, then exit.")
def top(*, every_seconds: float, once: bool, as_json: bool) -> None:
    """Show queues, nodes, rates, and slow and failing task types, until Ctrl-C."""
    stop_on_signals()
    try:
        if as_json:
            say_json(rates_json(*_two_looks(every_seconds)))
            return
        require("top", "taskapp top")
        from rich.console import Console

        from taskapp.monitor.top import UNBOUNDED, screen

        console = Console()
        if not console.is_terminal:
            console = Console(width=UNBOUNDED)
        if once or not console.is_terminal:
            console.print(screen(*_two_looks(every_seconds), argument=app_name()))
            return
        _show_live(console, every_seconds)
    except KeyboardInterrupt:
        pass


def _two_looks(every_seconds: float) -> tuple[Look, Look]:
    before = look()
    sleep_unless_interrupted(every_seconds)
    return before, look()


def _show_live(console: Console, every_seconds: float) -> None:
    from rich.live import Live
    from rich.text import Text

    from taskapp.monitor.top import screen

    before, now = None, look()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(screen(before, now, argument=app_name()), refresh=True)
            sleep_unless_interrupted(every_seconds)
            try:
                before, now = now, look()
            except click.ClickException as error:
                # The broker may come back; the next rates then cover the outage.
                live.update(Text(sanitize(f"{error.message}; trying again"), style="red"), refresh=True)


def look() -> Look:
    """Read the current state from the broker.

    Raises:
        click.ClickException: The broker cannot be reached.
        NoEngine: The broker is not Redis.
    """
    from taskapp.cli.engine import engine
    from taskapp.engine.counters import read_totals
    from taskapp.engine.snapshot import read_snapshot

    with engine() as lent:
        snapshot = read_snapshot(lent.link, lent.prefix, chosen_app().queue_names())
        return Look(time.monotonic(), snapshot, read_totals(lent.link, lent.prefix))
