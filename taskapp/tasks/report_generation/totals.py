"""Combines the rows of many parts into the rows of one table: pure arithmetic, no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from taskapp.errors import PermanentError, did_you_mean
from taskapp.tasks.data_processing.model import Aggregated, Scalar
from taskapp.tasks.report_generation.model import Fact, Leader, Report, Section, Summary, Table, Total

Row = dict[str, Any]


def combine(report: Report, parts: Sequence[Aggregated]) -> list[Row]:
    """Return the rows of all parts, each with its part's label.

    Raises:
        PermanentError: The numbers of parts and labels differ.
    """
    if len(parts) != len(report.labels):
        raise PermanentError(f"there are {len(parts)} parts for {len(report.labels)} labels")
    return [
        {report.label_column: label, **dict(zip(part.columns, row, strict=True))}
        for label, part in zip(report.labels, parts, strict=True)
        for row in part.rows
    ]


def table_of(rows: Sequence[Row], section: Section) -> Table:
    """Return the section's table: its summary of ``rows``, or its literal table."""
    if section.literal is not None:
        return section.literal
    assert section.summary is not None  # noqa: S101 - the payload has one of the two
    return summarise(rows, section.summary)


def summarise(rows: Sequence[Row], summary: Summary) -> Table:
    """Group ``rows`` again and return one row per group, in order of first appearance unless ordered."""
    groups = _grouped(rows, summary.group_by)
    columns = [*summary.group_by, *(total.name for total in summary.totals)]
    table = [[*key, *(total_of(members, total) for total in summary.totals)] for key, members in groups.items()]
    if summary.order_by is not None:
        position = _position(columns, summary.order_by)
        table.sort(key=lambda row: _descending(row[position]))
    return Table(
        columns=columns,
        rows=table[: summary.limit],
        names=len(summary.group_by),
        decimals=[total.decimals for total in summary.totals],
    )


def tile_of(rows: Sequence[Row], tile: Total | Leader | Fact) -> Scalar:
    """Return the tile's value: a number over all rows, the name of the leading group, or the given value."""
    if isinstance(tile, Fact):
        return tile.value
    if isinstance(tile, Total):
        return total_of(rows, tile)
    totals = {key: total_of(members, tile.total) for (key,), members in _grouped(rows, [tile.column]).items()}
    leader: Scalar = min(totals, key=lambda key: _descending(totals[key]), default=None)
    return leader


def total_of(rows: Iterable[Row], total: Total) -> Scalar:
    """Return one number for ``rows``; ``None`` if no row has a value.

    Raises:
        PermanentError: A sum or mean over values that are not numbers.
    """
    pairs = [(_cell(row, total.column), _cell(row, total.weight) if total.weight else 1) for row in rows]
    pairs = [(value, weight) for value, weight in pairs if value is not None and weight is not None]
    values = [value for value, _ in pairs]
    if total.function in ("count", "distinct"):
        return len(values if total.function == "count" else set(values))
    if not values:
        return None
    if total.function in ("min", "max"):
        found: Scalar = (min if total.function == "min" else max)(values, key=_ascending)
        return found
    for value in (value for pair in pairs for value in pair):
        if not isinstance(value, int | float):
            raise PermanentError(f"total {total.name!r} needs numbers, not {value!r}")
    if total.function == "sum":
        return sum(values) if all(isinstance(value, int) for value in values) else math.fsum(values)
    weights = math.fsum(weight for _, weight in pairs)
    return math.fsum(value * weight for value, weight in pairs) / weights if weights else None


def _grouped(rows: Sequence[Row], columns: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(_cell(row, column) for column in columns), []).append(row)
    return groups


def _cell(row: Row, column: str) -> Any:
    if column not in row:
        raise PermanentError(f"no part has a column {column!r}{did_you_mean(column, row)}")
    return row[column]


def _position(columns: Sequence[str], column: str) -> int:
    if column not in columns:
        raise PermanentError(f"cannot order by {column!r}{did_you_mean(column, columns)}")
    return columns.index(column)


def _ascending(value: Scalar) -> tuple[bool, Any]:
    """Sort key: numbers before texts, so that a mixed column can be sorted."""
    return isinstance(value, str), value


def _descending(value: Scalar) -> tuple[bool, bool, Any]:
    """Sort key: largest number first, then texts from A to Z, missing values last."""
    number = isinstance(value, int | float)
    return value is None, not number, -value if isinstance(value, int | float) else value or ""
