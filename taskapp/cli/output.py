"""Output of commands: the only path to a terminal for text that others wrote in tasks, messages and errors."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest
from typing import Any
from unicodedata import combining, east_asian_width

import click

from taskapp.sanitize import INDENT, sanitize, sanitize_json, sanitize_lines

GAP = "  "
NARROWEST = 8
"""Columns a cell keeps, however narrow the terminal is."""


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

    On a terminal that is too narrow, cells are wrapped; elsewhere each row is one line, however long.

    Args:
        headings: Column headings.
        rows: Cells of each row.
        unwrapped: Headings of the columns that must not wrap, such as ids, which people copy.
    """
    cells = [[sanitize(cell) for cell in row] for row in rows]
    if not cells:
        return
    widths = [max(map(columns_of, column)) for column in zip(headings, *cells, strict=True)]
    if sys.stdout.isatty():
        may_wrap = [index for index, heading in enumerate(headings) if heading not in unwrapped]
        _narrow(widths, may_wrap, shutil.get_terminal_size().columns)
    for row in (headings, *cells):
        wrapped = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for parts in zip_longest(*wrapped, fillvalue=""):
            click.echo(table_line(parts, widths))


def table_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return ``cells``, sanitized, as one line of a table whose columns have these widths."""
    return GAP.join(cell + " " * (width - columns_of(cell)) for cell, width in zip(cells, widths, strict=True)).rstrip()


def columns_of(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes, which is sanitized."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(each) else 1 + (east_asian_width(each) in "WF") for each in text)


def _narrow(widths: list[int], may_wrap: Sequence[int], most: int) -> None:
    """Take from the widest of those columns of a table, until it fits or all of them are narrow."""
    while may_wrap and sum(widths) + len(GAP) * (len(widths) - 1) > most:
        widest = max(may_wrap, key=widths.__getitem__)
        if widths[widest] <= NARROWEST:
            return
        widths[widest] -= 1


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a cell, broken at spaces where there are any."""
    lines = []
    while columns_of(text) > width:
        end = next(end for end in range(min(width, len(text)), 0, -1) if end == 1 or columns_of(text[:end]) <= width)
        space = text.rfind(" ", 1, end + 1)
        end = space if space > 0 else end
        lines.append(text[:end])
        text = text[end:].lstrip()
    return [*lines, text]
