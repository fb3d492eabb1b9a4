"""``taskapp demo``: the main job on real flight data, end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from taskapp.cli.output import say
from taskapp.extras import require
from taskapp.processes import stop_on_signals

PLAIN_WIDTH = 120
"""Columns of the output if it is not a terminal."""


@click.command()
@click.option(
    "--output", default="taskapp-demo", show_default=True, type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the report, mail and logs.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep everything running until Ctrl-C, so that you can look at Flower.")
def demo(*, output: Path, keep: bool) -> None:
    """Run the main job: 336,776 real flights through twelve parallel tasks to a report and an e-mail.

    Uses its own Redis server, directories and ports. Exits with 0 only if the report's numbers
    match numbers computed directly from the file and every other check passed.
    """
    require("demo", "taskapp demo")
    from rich.console import Console

    from taskapp.demo.run import run_demo

    stop_on_signals()
    try:
        console = Console()
        code = run_demo(console if console.is_terminal else Console(width=PLAIN_WIDTH), output, keep=keep)
    except KeyboardInterrupt:
        say("stopped; nothing is left running", err=True)
        code = 130
    sys.exit(code)
