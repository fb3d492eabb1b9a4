"""Runs ``data_processing``: one DuckDB query on one file, sandboxed and bounded in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from taskapp.errors import PermanentError
from taskapp.tasks.data_processing.model import Aggregation, Filter, Measure
from taskapp.tasks.data_processing.source import (
    Kind,
    Source,
    check_path,
    csv_source,
    format_of,
    jsonl_source,
    parquet_source,
)

MEMORY_LIMIT = "120MB"
"""Limit of the database; with Python, our modules and the allocator's reserve, the total is below 256 MB."""
THREADS = 1
"""Each thread needs its own buffers and groups, and a node runs several tasks anyway. With one thread, the
same file gives the same sums to the last digit."""

MAX_OTHER_VALUES = 1_000
"""Maximum number of values in a filter that binds each as a separate parameter."""

COMPARISONS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
ARITHMETIC = {"sum": "sum({})", "mean": "avg({})", "stddev": "stddev_samp({})", "median": "approx_quantile({}, 0.5)"}
"""Functions that need numbers. Quantiles are approximate: exact ones hold every value in memory."""
FUNCTIONS = {"count": "count({})", "min": "min({})", "max": "max({})", "distinct": "approx_count_distinct({})"}

Answer = TypeVar("Answer")


def run(aggregation: Aggregation, path: Path) -> list[tuple[Any, ...]]:
    """Return the rows in order; each ends with the number of file rows it aggregates.

    Raises:
        PermanentError: As for ``data_processing``.
    """
    kind = aggregation.format or format_of(path)
    if kind is None:
        raise PermanentError(f"the name of {str(path)!r} shows no format; set format to 'csv', 'jsonl' or 'parquet'")
    check_path(path)
    with _locked_database(path) as database:
        rows = _interruptible(database, lambda: _query(database, aggregation, path, kind))
    if len(rows) > aggregation.limit:
        raise PermanentError(
            f"{str(path)!r} has more than {aggregation.limit} groups of {aggregation.group_by}; "
            "group by fewer columns, filter, or raise limit"
        )
    return rows


def used_columns(aggregation: Aggregation) -> list[str]:
    """Return the file's columns that ``aggregation`` names, each once."""
    filtered = [condition.column for condition in aggregation.filters]
    measured = [measure.column for measure in aggregation.measures if measure.column]
    return list(dict.fromkeys([*aggregation.group_by, *filtered, *measured]))


def build_query(aggregation: Aggregation, source: Source) -> tuple[str, list[Any]]:
    """Return the SQL and its values; every name in it is ours and every value is bound.

    Raises:
        PermanentError: A filter or measure does not fit the type of its column.
    """
    groups = [source.column(name) for name in aggregation.group_by]
    selected = [*groups, *(_measure(measure, source) for measure in aggregation.measures), "count(*)"]
    conditions = [_condition(condition, source) for condition in aggregation.filters]
    query = f"SELECT {', '.join(selected)} FROM ({source.sql})"  # noqa: S608 - names are ours, values bound
    if conditions:
        query += f" WHERE {' AND '.join(sql for sql, _ in conditions)}"
    if groups:
        positions = range(1, len(groups) + 1)
        query += f" GROUP BY {', '.join(map(str, positions))} ORDER BY {_order(aggregation)}"
    values = [*source.values, *(value for _, bound in conditions for value in bound)]
    return f"{query} LIMIT {aggregation.limit + 1}", values


def _query(
    database: duckdb.DuckDBPyConnection, aggregation: Aggregation, path: Path, kind: str
) -> list[tuple[Any, ...]]:
    try:
        query, values = build_query(aggregation, _source(database, aggregation, path, kind))
        rows: list[tuple[Any, ...]] = database.execute(query, values).fetchall()
    except duckdb.OutOfMemoryException as error:
        raise PermanentError(_too_large(aggregation, path)) from error
    except duckdb.Error as error:
        raise PermanentError(f"cannot read {str(path)!r}: {_reason(error)}") from error
    return rows


def _too_large(aggregation: Aggregation, path: Path) -> str:
    if aggregation.group_by:
        return (
            f"{str(path)!r} has too many groups of {aggregation.group_by} for {MEMORY_LIMIT} of memory; "
            "group by fewer columns, filter, or leave out quantiles and distinct"
        )
    return f"a row of {str(path)!r} is too long for {MEMORY_LIMIT} of memory; write a file of the columns you need"


def _source(database: duckdb.DuckDBPyConnection, aggregation: Aggregation, path: Path, kind: str) -> Source:
    used = used_columns(aggregation)
    if kind == "csv":
        delimiter = aggregation.delimiter or ("\t" if ".tsv" in path.suffixes else ",")
        return csv_source(database, path, used, delimiter=delimiter, null_values=aggregation.null_values)
    return jsonl_source(database, path, used) if kind == "jsonl" else parquet_source(database, path, used)


def _order(aggregation: Aggregation) -> str:
    columns = aggregation.columns
    wanted = [
        f"{columns.index(order.column) + 1} {'DESC' if order.descending else 'ASC'}" for order in aggregation.order_by
    ]
    # Sort by the groups last, so that rows with equal values also have a fixed order.
    return ", ".join(f"{term} NULLS LAST" for term in [*wanted, *map(str, range(1, len(aggregation.group_by) + 1))])


def _measure(measure: Measure, source: Source) -> str:
    if measure.column is None:
        return "count(*)"
    column, kind = source.column(measure.column), source.kinds[measure.column]
    if measure.function in FUNCTIONS:
        return FUNCTIONS[measure.function].format(column)
    if kind == "text":
        raise PermanentError(
            f"column {measure.column!r} holds text, which has no {measure.function}; "
            "in CSV, name the texts that mean a missing value in null_values, or use count, distinct, min or max"
        )
    if kind in ("empty", "boolean"):
        column = f"CAST({column} AS DOUBLE)"
    if measure.function == "quantile":
        return f"approx_quantile({column}, {measure.quantile})"
    return ARITHMETIC[measure.function].format(column)


def _condition(condition: Filter, source: Source) -> tuple[str, list[Any]]:
    column = source.column(condition.column)
    if condition.op in ("is_null", "not_null"):
        return f"{column} IS {'NULL' if condition.op == 'is_null' else 'NOT NULL'}", []
    if condition.op == "contains":
        return f"contains(CAST({column} AS VARCHAR), ?)", [condition.value]
    wanted = condition.value if isinstance(condition.value, list) else [condition.value]
    values = [_comparable(value, condition.column, source.kinds[condition.column]) for value in wanted]
    if condition.op in COMPARISONS:
        return f"{column} {COMPARISONS[condition.op]} ?", values
    if not values:
        return ("false" if condition.op == "in" else "true"), []
    operator = "IN" if condition.op == "in" else "NOT IN"
    if source.kinds[condition.column] == "other":
        # DuckDB converts such a value, to a date for example, in a comparison but not in a list.
        if len(values) > MAX_OTHER_VALUES:
            raise PermanentError(
                f"a filter compares column {condition.column!r}, which holds neither text, numbers nor booleans, with "
                f"{len(values):,} values, but at most {MAX_OTHER_VALUES:,} are allowed; use a range (ge and lt)"
            )
        return f"{column} {operator} ({', '.join('?' * len(values))})", values
    # Bind them as one value: each parameter is a separate expression and takes 7 KB that no limit counts.
    return f"{column} {operator} (SELECT unnest(?))", [values]


def _comparable(value: Any, column: str, kind: Kind) -> Any:
    """Return ``value`` if it can be compared with a column of ``kind``; nothing is converted silently."""
    if kind == "empty":
        return str(value)
    if isinstance(value, bool):
        fits = kind in ("boolean", "other")
    elif isinstance(value, str):
        fits = kind in ("text", "other")
    else:
        fits = kind in ("integer", "number", "other")
    if not fits:
        raise PermanentError(f"column {column!r} holds {kind} values; a filter cannot compare them with {value!r}")
    return value


def _interruptible(database: duckdb.DuckDBPyConnection, work: Callable[[], Answer]) -> Answer:
    """Run ``work`` and return its result; an exception raised here during it, such as a time limit, interrupts it."""
    with ThreadPoolExecutor(1, thread_name_prefix="data-processing") as executor:
        future = executor.submit(work)
        try:
            return future.result()
        finally:
            # An interrupt between two statements has no effect, so repeat it.
            while not future.done():
                database.interrupt()
                wait([future], timeout=0.05)


@contextmanager
def _locked_database(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield an in-memory database that can only read ``path`` and spill to a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="taskapp-spill-") as spill:
        config: dict[str, Any] = {
            "memory_limit": MEMORY_LIMIT,
            "threads": THREADS,
            "temp_directory": spill,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        database = duckdb.connect(":memory:", config=config)
        try:
            database.execute("SET TimeZone = 'UTC'")
            database.execute("SET allowed_paths = ?", [[str(path)]])
            database.execute("SET enable_external_access = false")
            database.execute("SET lock_configuration = true")
            yield database
        finally:
            database.close()


def _reason(error: duckdb.Error) -> str:
    """Return DuckDB's error message without its advice on options that we do not offer."""
    text = str(error).split("Possible", maxsplit=1)[0].split("LINE 1:", maxsplit=1)[0]
    return " ".join(text.split())[:500]
