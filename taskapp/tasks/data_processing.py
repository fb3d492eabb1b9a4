"""``taskapp.data_processing``: filter, group and measure a file of rows, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from taskapp.celery import app
from taskapp.settings import get_settings
from taskapp.tasks.files import allowed_path

Column = Annotated[str, Field(min_length=1, max_length=256)]
Scalar = str | int | float | bool | None

MAX_ROWS = 100_000


class Filter(BaseModel):
    """Keeps the rows whose ``column`` stands in the relation ``op`` to ``value``."""

    model_config = ConfigDict(extra="forbid")

    column: Column
    op: Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "is_null", "not_null", "contains"]
    value: Scalar | list[Scalar] = None

    @model_validator(mode="after")
    def _value_fits_op(self) -> Filter:
        if (self.op in ("in", "not_in")) != isinstance(self.value, list):
            raise ValueError(f"op {self.op!r} needs {'a list' if self.op in ('in', 'not_in') else 'one value'}")
        if self.op == "contains" and not isinstance(self.value, str):
            raise ValueError("op 'contains' needs a text")
        return self


class Measure(BaseModel):
    """One number a group: ``function`` of ``column``, under ``name`` in the result."""

    model_config = ConfigDict(extra="forbid")

    name: Column
    function: Literal["count", "sum", "mean", "min", "max", "median", "stddev", "distinct"]
    column: Column | None = None
    """Needed by every function but ``count``, which counts rows without it and values with it."""

    @model_validator(mode="after")
    def _column_is_named(self) -> Measure:
        if self.column is None and self.function != "count":
            raise ValueError(f"function {self.function!r} needs a column")
        return self


class Aggregation(BaseModel):
    """What to read and what to make of it."""

    model_config = ConfigDict(extra="forbid")

    path: str
    """A file below ``TASKAPP_FILE_DIRS``; CSV and JSON Lines may be ``.gz`` or ``.zst``."""
    format: Literal["csv", "jsonl", "parquet"] | None = None
    """By default what the file's name says."""
    null_values: list[str] = [""]
    """Texts that mean a missing value, in CSV."""
    filters: list[Filter] = []
    """All must hold."""
    group_by: list[Column] = []
    """Without any, one row for the whole file."""
    measures: Annotated[list[Measure], Field(min_length=1)]
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 10_000
    """The most groups there may be; more is an error, not a part of the answer."""

    @model_validator(mode="after")
    def _columns_differ(self) -> Aggregation:
        names = [*self.group_by, *(measure.name for measure in self.measures)]
        if len(set(names)) != len(names):
            raise ValueError("two columns of the result have the same name")
        return self


class Aggregated(BaseModel):
    """The result: rows in the order of their groups."""

    columns: list[str]
    rows: list[list[Scalar]]
    rows_read: int
    """Rows that passed the filters."""
    seconds: float


@app.task(name="taskapp.data_processing", soft_time_limit=3_300, time_limit=3_600)
def data_processing(aggregation: Aggregation) -> Aggregated:
    """Read a file, keep some rows, group them and measure each group.

    Running it again reads the file again and writes nothing. Memory stays below 256 MB for any
    size of file (``benchmarks/data_processing_memory.py``).

    Raises:
        PathNotAllowed: The file is outside ``TASKAPP_FILE_DIRS``.
        PermanentError: It is missing or malformed, a column is unknown, or there are more groups
            than ``limit``. Not retried.
    """
    # duckdb is loaded by the node that runs the task, not by the web process that submits it.
    from taskapp.tasks import data_query

    path = allowed_path(aggregation.path, get_settings().allowed_roots, must_exist=True)
    started = time.monotonic()
    columns, rows = data_query.run(aggregation, path)
    return aggregated(columns, rows, seconds=time.monotonic() - started)


def aggregated(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, seconds: float) -> Aggregated:
    """Build the result; each row's last value is the number of rows in its group."""
    return Aggregated(
        columns=list(columns),
        rows=[[_json_value(value) for value in row[:-1]] for row in rows],
        rows_read=sum(row[-1] for row in rows),
        seconds=round(seconds, 3),
    )


def _json_value(value: Any) -> Scalar:
    """Turn a database value into JSON: dates and decimals become text and numbers, no NaN."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if abs(number) < float("inf") else None


def format_of(path: Path) -> str | None:
    """Return the format that the name of ``path`` tells: csv, jsonl or parquet."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".zst")]
    kinds = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
    return kinds.get(suffixes[-1]) if suffixes else None
