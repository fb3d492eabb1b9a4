"""Markdown tables of figures: one row per variant, medians over the rounds, failures in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.frameworks import BY_KEY, EARLY, VARIANTS
from benchmarks.records import Record

NONE, TIMES = "\u2013", "\u00d7"
REFERENCE = "taskapp-async"
"""The variant that others are compared with: the default worker with coroutine tasks."""


@dataclass(frozen=True)
class Column:
    """A column: its heading, its figure and its format."""

    heading: str
    figure: str
    digits: int = 0
    is_ratio: bool = False
    """Show the ratio to the figure of the reference, measured in the same run."""


def table(records: Iterable[Record], columns: Sequence[Column], runs: Mapping[str, str]) -> str:
    """Return the table of ``records``, in the order of the frameworks.

    Args:
        records: One for each variant.
        columns: What to show.
        runs: Letters for runs; shown if the records come from more than one.
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
    """Return a Markdown table with right-aligned numbers."""
    rule = ["---", *("---:" for _ in headings[1:])]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [headings, rule, *lines])


def title(record: Record) -> str:
    """Return the variant's title, marked if it acknowledges before the run."""
    variant = BY_KEY[record.variant]
    text = variant.title + (" ¹" if variant.acknowledges == EARLY else "")
    return f"**{text}**" if variant.framework == "taskapp" else text


def failures(records: Iterable[Record]) -> str:
    """Return a line for each variant that failed in some round."""
    return "".join(
        f"\n{BY_KEY[record.variant].title} failed in {len(record.failures)} of {rounds(record)} rounds: "
        f"{record.failures[0]}.\n"
        for record in records
        if record.failures
    )


def rounds(record: Record) -> int:
    """Return the number of attempts."""
    return len(record.failures) + max(map(len, record.figures.values()), default=0)


def number(value: float, digits: int = 0) -> str:
    """Return ``value`` with thousands separators: ``1,234``."""
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
        records: Any number for each variant.
        headings: Headings of the columns.
        place: Returns the heading of a record's column.
        figure: Name of the figure to show.
    """
    cells: dict[str, dict[str, str]] = {}
    some: dict[str, Record] = {}
    for record in records:
        value = record.median(figure)
        some[record.variant] = record
        cells.setdefault(record.variant, {})[place(record)] = "failed" if value is None else number(value)
    lines = [
        [title(some[variant.key]), *(cells[variant.key].get(heading, NONE) for heading in headings)]
        for variant in VARIANTS
        if variant.key in cells
    ]
    return markdown(["", *headings], lines) if lines else "Not measured.\n"
