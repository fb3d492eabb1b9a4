"""Payload and result of ``taskapp.data_processing``.

Schemas are built at first use (``defer_build``), because a node and a web app import all task types and use some.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from taskapp.errors import did_you_mean

Column = Annotated[str, Field(min_length=1, max_length=256)]
Scalar = str | int | float | bool | None

MAX_ROWS = 100_000
MAX_FILTERS = 100
MAX_FILTER_VALUES = 100_000
MAX_GROUP_COLUMNS = 100
MAX_MEASURES = 200
MAX_NULL_VALUES = 100


class Filter(BaseModel, defer_build=True):
    """Keeps the rows for which comparing ``column`` with ``value`` by ``op`` is true."""

    model_config = ConfigDict(extra="forbid")

    column: Column
    op: Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "is_null", "not_null", "contains"]
    value: Scalar | list[Scalar] = None

    @model_validator(mode="after")
    def _value_fits_op(self) -> Filter:
        if (self.op in ("in", "not_in")) != isinstance(self.value, list):
            raise ValueError(f"op {self.op!r} needs {'a list' if self.op in ('in', 'not_in') else 'one value'}")
        if self.op == "contains" and not isinstance(self.value, str):
            raise ValueError("op 'contains' needs a string")
        values = self.value if isinstance(self.value, list) else [self.value]
        if self.op not in ("is_null", "not_null") and None in values:
            raise ValueError(f"op {self.op!r} cannot compare with null; use 'is_null' or 'not_null'")
        if self.op in ("is_null", "not_null") and self.value is not None:
            raise ValueError(f"op {self.op!r} takes no value")
        return self


class Measure(BaseModel, defer_build=True):
    """One number per group: ``function`` of ``column``, as ``name`` in the result."""

    model_config = ConfigDict(extra="forbid")

    name: Column
    function: Literal["count", "sum", "mean", "min", "max", "median", "quantile", "stddev", "distinct"]
    """``median``, ``quantile`` and ``distinct`` are approximate: exact ones need unbounded memory."""
    column: Column | None = None
    """Required except for ``count``, which counts rows without it and values with it."""
    quantile: Annotated[float, Field(ge=0, le=1)] | None = None
    """For ``quantile``: 0.95 for the value that 95 % of the values do not exceed."""

    @model_validator(mode="after")
    def _fields_fit_function(self) -> Measure:
        if self.column is None and self.function != "count":
            raise ValueError(f"function {self.function!r} needs a column")
        if (self.function == "quantile") != (self.quantile is not None):
            raise ValueError("function 'quantile' needs the field quantile, and no other function takes it")
        return self


class Order(BaseModel, defer_build=True):
    """Sorts the result by one of its columns; missing values last."""

    model_config = ConfigDict(extra="forbid")

    column: Column
    descending: bool = False


class Aggregation(BaseModel, defer_build=True):
    """What to read, and how to aggregate it."""

    model_config = ConfigDict(extra="forbid")

    path: str
    """A file below ``TASKAPP_FILE_DIRS``; CSV and JSON Lines may be ``.gz`` or ``.zst``."""
    format: Literal["csv", "jsonl", "parquet"] | None = None
    """By default taken from the file's name."""
    delimiter: Annotated[str, Field(pattern=r"^[^\"\r\n\x1f]$")] | None = None
    """Separator of the values in a CSV row; by default a tab for ``.tsv`` and a comma otherwise."""
    null_values: Annotated[list[str], Field(min_length=1, max_length=MAX_NULL_VALUES)] = [""]
    """Texts that stand for a missing value in CSV."""
    filters: Annotated[list[Filter], Field(max_length=MAX_FILTERS)] = []
    """A row must match all of them. Together they may name ``MAX_FILTER_VALUES`` values."""
    group_by: Annotated[list[Column], Field(max_length=MAX_GROUP_COLUMNS)] = []
    """If empty, the result is one row for the whole file."""
    measures: Annotated[list[Measure], Field(min_length=1, max_length=MAX_MEASURES)]
    order_by: Annotated[list[Order], Field(max_length=MAX_GROUP_COLUMNS + MAX_MEASURES)] = []
    """By default, rows are sorted by their groups."""
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 10_000
    """Maximum number of groups; more is an error, never a partial result."""

    @model_validator(mode="after")
    def _columns_fit(self) -> Aggregation:
        values = sum(len(each.value) for each in self.filters if isinstance(each.value, list))
        if values > MAX_FILTER_VALUES:
            raise ValueError(
                f"the filters name {values:,} values, but at most {MAX_FILTER_VALUES:,} are allowed; "
                "use ranges (ge and lt), or several tasks"
            )
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("two columns of the result have the same name")
        for order in self.order_by:
            if order.column not in self.columns:
                hint = did_you_mean(order.column, self.columns)
                raise ValueError(f"order_by: the result has no column {order.column!r}{hint}")
        return self

    @property
    def columns(self) -> list[str]:
        """Names of the result's columns."""
        return [*self.group_by, *(measure.name for measure in self.measures)]


class Aggregated(BaseModel, defer_build=True):
    """The result; by default, rows are sorted by their groups."""

    model_config = ConfigDict(allow_inf_nan=False)

    columns: list[str]
    rows: list[list[Scalar]]
    rows_read: int
    """Rows that passed the filters."""
    seconds: float


def aggregated(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, seconds: float) -> Aggregated:
    """Build the result; each row's last value is the number of rows in its group."""
    return Aggregated(
        columns=list(columns),
        rows=[[_json_value(value) for value in row[:-1]] for row in rows],
        rows_read=sum(row[-1] for row in rows),
        seconds=round(seconds, 3),
    )


def _json_value(value: Any) -> Scalar:
    """Convert a database value to JSON: dates become text, decimals become numbers, NaN becomes null."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    return str(value.isoformat() if hasattr(value, "isoformat") else value)
