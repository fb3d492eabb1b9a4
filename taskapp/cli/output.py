"""Output of commands: the only path to a terminal for text that others wrote in tasks, messages and errors."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import click

from taskapp.cli.table import TextTable
from taskapp.sanitize import INDENT, sanitize, sanitize_json, sanitize_lines


def say(text: object = "", *, head: str = "", err: bool = False) -> None:
    """Print ``text`` as one line, sanitized.

    Args:
        text: What to print.
        head: Our own text to print before it unchanged; may contain colors.
        err: Print to standard error.
    """
    click.echo(head + sanitize(text, keep="\t"), err=err)


def say_lines(text: object, *, head: str = "", err: bool = False) -> None:
    """Print ``text`` sanitized, keeping its lines; all but the first are indented."""
    click.echo(head + sanitize_lines(text), err=err)


def say_block(text: object) -> None:
    """Print ``text`` sanitized, keeping its lines, all indented."""
    say_lines(text, head=INDENT)


def say_json(value: Any) -> None:
    """Print ``value`` as one line of JSON in ASCII."""
    click.echo(sanitize_json(json.dumps(value)))


def say_table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, kept: Collection[str], expendable: Sequence[str] = ()
) -> None:
    """Print a table as its rows arrive, sanitized cell by cell; print nothing if it has no rows.

    Args:
        headings: Column headings.
        rows: Cells of each row.
        kept: Headings of the columns that are never cut, wrapped or dropped: ids and names, which people copy.
        expendable: Headings of the columns to drop first on a narrow terminal.
    """
    table = TextTable(headings, kept, expendable, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    for line in table.lines(rows):
        click.echo(line)
    if table.dropped:
        say(f"no room for: {', '.join(table.dropped)}; widen the terminal, or use --json", err=True)
