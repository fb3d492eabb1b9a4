"""Markdown tables of figures: a row a variant, medians over the rounds, what broke off in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.frameworks import BY_KEY, EARLY, VARIANTS
from benchmarks.records import Record

NONE, TIMES = "\u2013", "\u00d7"
REFERENCE = "taskapp-async"
"""What the others are compared with: the worker as it comes, with tasks that are coroutines."""


@dataclass(frozen=True)
class Column:
    """A column: its heading, its figure, and how that is written."""

    heading: str
    figure: str
    digits: int = 0
    is_ratio: bool = False
    """How many times the figure of the reference, both measured in the same run."""


def table(records: Iterable[Record], columns: Sequence[Column], runs: Mapping[str, str]) -> str:
    """Return the table of ``records``, in the order of the frameworks.

    Args:
        records: One of each variant.
        columns: What to show.
        runs: Letters for runs; shown where records come from more than one.
    """
    of = {record.variant: record for record in records}
    rows = [of[variant.key] for variant in VARIANTS if variant.key in of]
    if not rows:
        return "Not measured.\n"
    letters = [runs[record.run] for record in rows]
    headings = ["", *(column.heading for column in columns)]
    lines = [[title(record), *(_cell(record, of.get(REFERENCE), column) for column in columns)] for record in rows]
    if len(set(letters)) > 1:
        headings.append("run")
        lines = [[*line, letter] for line, letter in zip(lines, letters, strict=True)]
    return markdown(headings, lines) + failures(rows)


def markdown(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, numbers to the right."""
    rule = ["---", *("---:" for _ in headings[1:])]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [headings, rule, *lines])


def title(record: Record) -> str:
    """Return the variant's title, marked where it gives a message up before the task has run."""
    variant = BY_KEY[record.variant]
    text = variant.title + (" ¹" if variant.acknowledges == EARLY else "")
    return f"**{text}**" if variant.framework == "taskapp" else text


def failures(records: Iterable[Record]) -> str:
    """Return a line for each variant that could not be measured in some round."""
    return "".join(
        f"\n{BY_KEY[record.variant].title} broke off in {len(record.failures)} of {rounds(record)} rounds: "
        f"{record.failures[0]}.\n"
        for record in records
        if record.failures
    )


def rounds(record: Record) -> int:
    """Return how often it was tried."""
    return len(record.failures) + max(map(len, record.figures.values()), default=0)


def number(value: float, digits: int = 0) -> str:
    """Return ``value`` with thousands parted: ``1,234``."""
    return f"{value:,.{digits}f}"


def _cell(record: Record, reference: Record | None, column: Column) -> str:
    value = record.median(column.figure)
    if value is None:
        return NONE
    if not column.is_ratio:
        return number(value, column.digits)
    base = reference.median(column.figure) if reference and reference.run == record.run else None
    return f"{value / base:.{column.digits}f} {TIMES}" if base else NONE


def across(records: Iterable[Record], headings: Sequence[str], place: Callable[[Record], str], figure: str) -> str:
    """Return a table of one figure with a column for each value of a parameter.

    Args:
        records: Any number of each variant.
        headings: The columns.
        place: The column that a record belongs in.
        figure: What to show.
    """
    cells: dict[str, dict[str, str]] = {}
    some: dict[str, Record] = {}
    for record in records:
        value = record.median(figure)
        some[record.variant] = record
        cells.setdefault(record.variant, {})[place(record)] = "broke off" if value is None else number(value)
    lines = [
        [title(some[variant.key]), *(cells[variant.key].get(heading, NONE) for heading in headings)]
        for variant in VARIANTS
        if variant.key in cells
    ]
    return markdown(["", *headings], lines) if lines else "Not measured.\n"
