"""Output of commands: the only path to a terminal for text that others wrote in tasks, messages and errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from taskapp.sanitize import INDENT, sanitize, sanitize_json, sanitize_lines

PIPED_WIDTH = 200
"""Columns of a table that is not printed to a terminal."""


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


def say_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, unwrapped: Collection[str] = ()) -> None:
    """Print a table, sanitized cell by cell; print nothing if it has no rows.

    Args:
        headings: Column headings.
        rows: Cells of each row.
        unwrapped: Headings of the columns that must not wrap.
    """
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading in unwrapped)
    for row in rows:
        table.add_row(*[Text(sanitize(cell)) for cell in row])
    if table.row_count:
        Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table)
