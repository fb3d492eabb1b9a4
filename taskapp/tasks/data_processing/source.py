"""Presents a file to ``data_processing`` as a table whose columns ``c0``, ``c1`` … are those in use.

For CSV and JSON Lines, no name from outside becomes SQL; Parquet's names are quoted. A CSV column gets the narrowest
kind that fits all its values, a JSON Lines column the kind its JSON values have, even if text first appears in row one
million. Such a file is therefore read once or twice more to find the kinds.
"""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from taskapp.errors import PermanentError, did_you_mean

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Kind = Literal["empty", "boolean", "integer", "number", "text", "other"]
"""``empty`` has no values at all; ``other`` covers Parquet's dates, lists and the like."""

SAMPLE_ROWS = 20_000
MAX_COLUMNS = 10_000
MAX_FOOTER_BYTES = 8 * 1024 * 1024
"""Limit for the footer of a Parquet file; in memory it takes about ten times as much."""
BUFFER_BYTES = 4 * 1024 * 1024
"""Buffer size of a CSV reader. DuckDB creates several; its default alone would take 256 MB."""

_CSV = (
    "read_csv(?, auto_detect = false, header = {header}, columns = ?, delim = ?, quote = ?, escape = ?, "
    f"nullstr = ?, hive_partitioning = false, buffer_size = {BUFFER_BYTES})"
)
_JSONL = "read_ndjson_objects(?, hive_partitioning = false)"
_PARQUET = "read_parquet(?, hive_partitioning = false)"

_WEAKER: dict[Kind, Kind] = {"empty": "boolean", "boolean": "integer", "integer": "number", "number": "text"}
_TYPES = {"empty": "VARCHAR", "boolean": "BOOLEAN", "integer": "BIGINT", "number": "DOUBLE", "text": "VARCHAR"}
# 0123 and numbers of 19 digits are codes and ids: as numbers they would lose digits.
_CSV_FITS = {
    "boolean": "lower({c}) IN ('true', 'false')",
    "integer": "CAST(try_cast({c} AS BIGINT) AS VARCHAR) = {c}",
    "number": "try_cast({c} AS DOUBLE) IS NOT NULL AND NOT ({c} >= '00' AND {c} < '0:') "
    "AND NOT contains({c}, '_') AND (length({c}) < 19 OR contains({c}, '.'))",
}
_JSONL_FITS = {
    "boolean": "{t} = 'BOOLEAN'",
    "integer": "{t} IN ('BIGINT', 'UBIGINT') AND try_cast({c} AS BIGINT) IS NOT NULL",
    "number": "{t} IN ('BIGINT', 'UBIGINT', 'DOUBLE')",
}


@dataclass(frozen=True)
class Source:
    """A subquery and its values; ``kinds`` maps the used columns, in order, to their kinds."""

    sql: str
    values: list[Any]
    kinds: dict[str, Kind]

    def column(self, name: str) -> str:
        """Return the SQL name of the file's column ``name``."""
        return f"c{list(self.kinds).index(name)}"


def csv_source(
    database: DuckDBPyConnection, path: Path, used: Sequence[str], *, delimiter: str, null_values: Sequence[str]
) -> Source:
    """Read UTF-8 CSV with a header and doubled quotes inside quotes; any other line is an error."""
    header = _csv_header(database, path, delimiter)
    if header is None:
        return _nothing(used)
    _check_width(len(header), path)
    _check_known(used, header, path)
    for name in used:
        if header.count(name) > 1:
            raise PermanentError(f"{str(path)!r} has {header.count(name)} columns {name!r}; rename all but one")
    columns = {f"f{index}": "VARCHAR" for index in range(len(header))}
    selected = [f"f{header.index(name)} AS c{index}" for index, name in enumerate(used)]
    raw = f"SELECT {', '.join(selected) or '1'} FROM {_CSV.format(header='true')}"  # noqa: S608 - names are ours
    return _typed(database, raw, [str(path), columns, delimiter, '"', '"', list(null_values)], used, _CSV_FITS)


def jsonl_source(database: DuckDBPyConnection, path: Path, used: Sequence[str]) -> Source:
    """Read one JSON object per line; a key that a line lacks is a missing value."""
    if not database.execute(f"SELECT 1 FROM {_JSONL} LIMIT 1", [str(path)]).fetchall():  # noqa: S608 - a constant
        return _nothing(used)
    # If keys are data, there may be millions; so list only some, and look up those in use by name.
    sample = f"(SELECT json FROM {_JSONL} LIMIT {SAMPLE_ROWS})"  # noqa: S608 - a constant
    keys = "SELECT DISTINCT key FROM (SELECT unnest(json_keys(json)) AS key FROM {rows})"
    listed = database.execute(f"{keys.format(rows=sample)} LIMIT {MAX_COLUMNS}", [str(path)]).fetchall()
    known = [row[0] for row in listed]
    if not set(used) <= set(known):
        named = f"{keys.format(rows=_JSONL)} WHERE key IN (SELECT unnest(?))"
        known += [row[0] for row in database.execute(named, [str(path), list(used)]).fetchall()]
    _check_known(used, known, path)
    if not used:
        return Source(f"SELECT 1 FROM {_JSONL}", [str(path)], {})  # noqa: S608 - a constant
    selected = [f"x[{n + 1}] ->> '$' AS c{n}, json_type(x[{n + 1}]) AS t{n}" for n in range(len(used))]
    raw = f"SELECT {', '.join(selected)} FROM (SELECT json_extract(json, ?) AS x FROM {_JSONL})"  # noqa: S608 - ours
    pointers = ["/" + name.replace("~", "~0").replace("/", "~1") for name in used]
    return _typed(database, raw, [pointers, str(path)], used, _JSONL_FITS)


def parquet_source(database: DuckDBPyConnection, path: Path, used: Sequence[str]) -> Source:
    """Read Parquet with its declared types."""
    _check_footer(path)
    described = database.execute(f"DESCRIBE SELECT * FROM {_PARQUET}", [str(path)]).fetchall()  # noqa: S608 - a constant
    _check_width(len(described), path)
    types = {row[0]: row[1] for row in described}
    _check_known(used, list(types), path)
    selected = [f"{quoted(name)} AS c{index}" for index, name in enumerate(used)]
    sql = f"SELECT {', '.join(selected) or '1'} FROM {_PARQUET}"  # noqa: S608 - names are quoted
    return Source(sql, [str(path)], {name: _parquet_kind(types[name]) for name in used})


def quoted(name: str) -> str:
    """Return ``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def check_path(path: Path) -> None:
    """Refuse a name that DuckDB would read as a pattern for many files.

    Raises:
        PermanentError: The name contains ``*``, ``?`` or ``[``.
    """
    if glob.has_magic(str(path)):
        raise PermanentError(f"the name of {str(path)!r} is a pattern; rename the file without '*', '?' and '['")


def _csv_header(database: DuckDBPyConnection, path: Path, delimiter: str) -> list[str] | None:
    # This delimiter does not split lines: no text file contains U+001F.
    lines = database.execute(
        f"SELECT line FROM {_CSV.format(header='false')} LIMIT 1",  # noqa: S608 - a constant
        [str(path), {"line": "VARCHAR"}, "\x1f", "", "", [""]],
    ).fetchall()
    if not lines:
        return None
    try:
        return next(csv.reader([lines[0][0] or ""], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise PermanentError(f"cannot read {str(path)!r}: line 1, the header: {error}") from error


def _check_width(columns: int, path: Path) -> None:
    if columns > MAX_COLUMNS:
        raise PermanentError(
            f"{str(path)!r} has {columns:,} columns, but at most {MAX_COLUMNS:,} are allowed; "
            "write those you need to a separate file"
        )


def _check_footer(path: Path) -> None:
    """Refuse a Parquet file whose column metadata alone would take too much memory."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(length - 8, 0))
        size = int.from_bytes(file.read(4), "little")
    if length > size > MAX_FOOTER_BYTES:
        raise PermanentError(
            f"{str(path)!r} has a footer of {size:,} bytes, but at most {MAX_FOOTER_BYTES:,} are allowed; "
            "write it with fewer columns, or with larger row groups"
        )


def _check_known(used: Sequence[str], known: Sequence[str], path: Path) -> None:
    for name in used:
        if name not in known:
            raise PermanentError(f"{str(path)!r} has no column {name!r}{did_you_mean(name, known)}")


def _nothing(used: Sequence[str]) -> Source:
    columns = ", ".join(f"CAST(NULL AS VARCHAR) AS c{index}" for index in range(len(used)))
    return Source(f"SELECT {columns or '1'} WHERE false", [], dict.fromkeys(used, "empty"))


def _typed(
    database: DuckDBPyConnection, raw: str, values: list[Any], used: Sequence[str], fits: dict[str, str]
) -> Source:
    kinds: dict[str, Kind] = dict.fromkeys(used, "empty")
    for scope in (f"{raw} LIMIT {SAMPLE_ROWS}", raw):
        while unfit := _unfit(database, scope, values, kinds, fits):
            kinds |= {name: _WEAKER[kinds[name]] for name in unfit}
    casts = [f"CAST(c{index} AS {_TYPES[kinds[name]]}) AS c{index}" for index, name in enumerate(used)]
    return Source(f"SELECT {', '.join(casts) or '1'} FROM ({raw})", values, kinds)  # noqa: S608 - names are ours


def _unfit(
    database: DuckDBPyConnection, rows: str, values: list[Any], kinds: dict[str, Kind], fits: dict[str, str]
) -> list[str]:
    """Return the columns that have a value their kind does not allow."""
    checked = [(index, name) for index, name in enumerate(kinds) if kinds[name] != "text"]
    if not checked:
        return []
    misfits = []
    for index, name in checked:
        fit = fits.get(kinds[name], "false").format(c=f"c{index}", t=f"t{index}")
        misfits.append(f"coalesce(bool_or(c{index} IS NOT NULL AND NOT coalesce({fit}, false)), false)")
    found = database.execute(f"SELECT {', '.join(misfits)} FROM ({rows})", values).fetchall()[0]  # noqa: S608 - ours
    return [name for (_, name), unfit in zip(checked, found, strict=True) if unfit]


def _parquet_kind(declared: str) -> Kind:
    if declared.removeprefix("U") in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"):
        return "integer"
    if declared in ("FLOAT", "DOUBLE") or declared.startswith("DECIMAL"):
        return "number"
    return {"BOOLEAN": "boolean", "VARCHAR": "text"}.get(declared, "other")  # type: ignore[return-value]  # both are kinds


def format_of(path: Path) -> str | None:
    """Return the format that the name of ``path`` shows: csv, jsonl or parquet; ``None`` if none."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".zst")]
    kinds = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
    return kinds.get(suffixes[-1]) if suffixes else None
