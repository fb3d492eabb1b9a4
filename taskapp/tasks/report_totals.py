"""Rows of many parts to the rows of one table: pure arithmetic, no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from taskapp.errors import PermanentError, did_you_mean
from taskapp.tasks.data_processing import Aggregated, Scalar
from taskapp.tasks.report_generation import Report, Summary, TableData, Total

Row = dict[str, Any]


def combine(report: Report, parts: Sequence[Aggregated]) -> list[Row]:
    """Return the rows of all parts, each with its part's label.

    Raises:
        PermanentError: There are more or fewer parts than labels.
    """
    if len(parts) != len(report.labels):
        raise PermanentError(f"there are {len(parts)} parts for {len(report.labels)} labels")
    return [
        {report.label_column: label, **dict(zip(part.columns, row, strict=True))}
        for label, part in zip(report.labels, parts, strict=True)
        for row in part.rows
    ]


def summarise(rows: Sequence[Row], summary: Summary) -> TableData:
    """Group ``rows`` again and return one row a group, groups in the order they first come."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(_cell(row, column) for column in summary.group_by), []).append(row)
    columns = [*summary.group_by, *(total.name for total in summary.totals)]
    table = [[*key, *(total_of(members, total) for total in summary.totals)] for key, members in groups.items()]
    if summary.order_by is not None:
        position = _position(columns, summary.order_by)
        table.sort(key=lambda row: (row[position] is None, _descending(row[position])))
    return TableData(columns=columns, rows=table[: summary.limit])


def total_of(rows: Iterable[Row], total: Total) -> Scalar:
    """Return one number for ``rows``; ``None`` where no row has a value."""
    pairs = [(_cell(row, total.column), _cell(row, total.weight) if total.weight else 1) for row in rows]
    pairs = [(value, weight) for value, weight in pairs if value is not None and weight is not None]
    values = [value for value, _ in pairs]
    if total.function == "count":
        return len(values)
    if not values:
        return None
    if total.function == "mean":
        weights = math.fsum(weight for _, weight in pairs)
        return math.fsum(value * weight for value, weight in pairs) / weights if weights else None
    if total.function == "sum":
        return sum(values) if all(isinstance(value, int) for value in values) else math.fsum(values)
    smallest_or_largest: Scalar = min(values) if total.function == "min" else max(values)
    return smallest_or_largest


def _cell(row: Row, column: str) -> Any:
    if column not in row:
        raise PermanentError(f"no part has a column {column!r}{did_you_mean(column, row)}")
    return row[column]


def _position(columns: Sequence[str], column: str) -> int:
    if column not in columns:
        raise PermanentError(f"cannot order by {column!r}{did_you_mean(column, columns)}")
    return columns.index(column)


def _descending(value: Scalar) -> Any:
    return -value if isinstance(value, int | float) else str(value)
