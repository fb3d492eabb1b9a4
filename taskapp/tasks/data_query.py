"""How ``data_processing`` runs: one DuckDB query on one file, locked in and bounded in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from taskapp.errors import PermanentError, did_you_mean
from taskapp.tasks.data_processing import Aggregation, Filter, Measure, format_of

MEMORY_LIMIT = "128MB"
"""Of the database; the process itself and the read buffers come on top, all below 256 MB."""
THREADS = 2
READ_BUFFER_BYTES = 4 * 2**20
"""Of a CSV; a line may be half as long."""
ROW_COUNT = "taskapp rows"
"""The extra last column: how many rows a group has."""

COMPARISONS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
FUNCTIONS = {
    "sum": "sum({})",
    "mean": "avg({})",
    "min": "min({})",
    "max": "max({})",
    "median": "approx_quantile({}, 0.5)",
    "stddev": "stddev_samp({})",
    "distinct": "approx_count_distinct({})",
}
"""Median and distinct are the approximate ones: exact ones hold every value in memory."""


def run(aggregation: Aggregation, path: Path) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return columns and rows; behind each row's columns stands its number of rows read.

    Raises:
        PermanentError: As ``data_processing`` says.
    """
    reader, reader_values = _reader(aggregation, path)
    with _locked_database(path) as database:
        try:
            described = database.execute(f"DESCRIBE SELECT * FROM {reader}", reader_values)  # noqa: S608 - ours alone
            known = [row[0] for row in described.fetchall()]
            _check_columns(aggregation, known, path)
            query, values = build_query(aggregation, reader)
            cursor = database.execute(query, [*reader_values, *values])
            columns = [column[0] for column in cursor.description][:-1]
            rows = cursor.fetchmany(aggregation.limit + 1)
        except duckdb.OutOfMemoryException as error:
            raise PermanentError(
                f"{str(path)!r} needs more memory than {MEMORY_LIMIT} for so many groups; "
                "group by fewer columns, or leave out median and distinct"
            ) from error
        except duckdb.Error as error:
            raise PermanentError(f"cannot read {str(path)!r}: {_first_lines(error)}") from error
    if len(rows) > aggregation.limit:
        raise PermanentError(
            f"{str(path)!r} has more than {aggregation.limit} groups of {aggregation.group_by}; "
            "group by fewer columns, filter, or raise limit"
        )
    return columns, rows


def build_query(aggregation: Aggregation, reader: str) -> tuple[str, list[Any]]:
    """Return the SQL and its values; names are quoted and values bound, so that neither is code."""
    groups = [quoted(column) for column in aggregation.group_by]
    selected = [*groups, *(_measure(measure) for measure in aggregation.measures), f"count(*) AS {quoted(ROW_COUNT)}"]
    conditions, values = [], []
    for condition in aggregation.filters:
        sql, bound = _condition(condition)
        conditions.append(sql)
        values.extend(bound)
    query = f"SELECT {', '.join(selected)} FROM {reader}"  # noqa: S608 - names are quoted, values bound
    if conditions:
        query += f" WHERE {' AND '.join(conditions)}"
    if groups:
        query += f" GROUP BY {', '.join(groups)} ORDER BY {', '.join(f'{group} NULLS LAST' for group in groups)}"
    return query + f" LIMIT {aggregation.limit + 1}", values


def quoted(name: str) -> str:
    """Return ``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _measure(measure: Measure) -> str:
    if measure.function == "count":
        expression = f"count({quoted(measure.column)})" if measure.column else "count(*)"
    else:
        expression = FUNCTIONS[measure.function].format(quoted(measure.column or ""))
    return f"{expression} AS {quoted(measure.name)}"


def _condition(condition: Filter) -> tuple[str, list[Any]]:
    column = quoted(condition.column)
    if condition.op in COMPARISONS:
        return f"{column} {COMPARISONS[condition.op]} ?", [condition.value]
    if condition.op in ("in", "not_in"):
        values = list(condition.value) if isinstance(condition.value, list) else []
        if not values:
            return ("false" if condition.op == "in" else "true"), []
        return f"{column} {'IN' if condition.op == 'in' else 'NOT IN'} ({', '.join('?' * len(values))})", values
    if condition.op == "contains":
        return f"contains(CAST({column} AS VARCHAR), ?)", [condition.value]
    return f"{column} IS {'NULL' if condition.op == 'is_null' else 'NOT NULL'}", []


def _reader(aggregation: Aggregation, path: Path) -> tuple[str, list[Any]]:
    kind = aggregation.format or format_of(path)
    if kind == "csv":
        # The whole file decides the types: a text in row one million must not be a surprise.
        # Buffers of the default 32 MB, several a thread, would fill the memory limit by themselves.
        return (
            f"read_csv(?, nullstr = ?, header = true, sample_size = -1, buffer_size = {READ_BUFFER_BYTES})",
            [str(path), aggregation.null_values],
        )
    if kind == "jsonl":
        return "read_json(?, format = 'newline_delimited', sample_size = -1)", [str(path)]
    if kind == "parquet":
        return "read_parquet(?)", [str(path)]
    raise PermanentError(f"the name of {str(path)!r} tells no format; set format to 'csv', 'jsonl' or 'parquet'")


def _check_columns(aggregation: Aggregation, known: list[str], path: Path) -> None:
    used = [
        *(condition.column for condition in aggregation.filters),
        *aggregation.group_by,
        *(measure.column for measure in aggregation.measures if measure.column),
    ]
    for column in used:
        if column not in known:
            raise PermanentError(f"{str(path)!r} has no column {column!r}{did_you_mean(column, known)}")


@contextmanager
def _locked_database(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a database in memory that reads ``path``, spills to a folder of its own, and nothing else."""
    with tempfile.TemporaryDirectory(prefix="taskapp-spill-") as spill:
        config: dict[str, Any] = {
            "memory_limit": MEMORY_LIMIT,
            "threads": THREADS,
            "temp_directory": spill,
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        database = duckdb.connect(":memory:", config=config)
        try:
            database.execute("SET allowed_paths = ?", [[str(path)]])
            database.execute("SET enable_external_access = false")
            database.execute("SET lock_configuration = true")
            yield database
        finally:
            database.close()


def _first_lines(error: duckdb.Error) -> str:
    return " ".join(str(error).split("\n\n", maxsplit=1)[0].split())[:500]
