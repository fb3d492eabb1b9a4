"""``taskapp demo``: the main job on real flights, end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from taskapp.cli.output import say
from taskapp.processes import stop_on_signals

PLAIN_WIDTH = 120
"""Columns of what is printed where there is no terminal."""


@click.command()
@click.option(
    "--output", default="taskapp-demo", show_default=True, type=click.Path(file_okay=False, path_type=Path),
    help="Where report, mail and logs stay.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C, to look at Flower.")
def demo(*, output: Path, keep: bool) -> None:
    """Run the main job: 336,776 real flights through twelve parallel tasks to a report and a mail.

    Uses a Redis server, directories and ports of its own. Exit code 0 only if the report's
    numbers match ones computed straight from the file and every other check passed.
    """
    from taskapp.demo.run import run_demo

    stop_on_signals()
    try:
        console = Console()
        code = run_demo(console if console.is_terminal else Console(width=PLAIN_WIDTH), output, keep=keep)
    except KeyboardInterrupt:
        say("stopped; nothing is left running", err=True)
        code = 130
    sys.exit(code)
