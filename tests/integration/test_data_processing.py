from __future__ import annotations

import csv
import gzip
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskapp.errors import InvalidPayload, PathNotAllowed, PermanentError
from taskapp.settings import forget_settings
from taskapp.tasks import data_processing
from tests.support import examples

Run = Callable[..., dict[str, Any]]
COUNT = {"name": "n", "function": "count"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TASKAPP_FILE_DIRS", str(tmp_path))
    forget_settings()
    yield tmp_path
    forget_settings()


def aggregate(path: Path, *measures: dict[str, Any], **options: Any) -> dict[str, Any]:
    result: dict[str, Any] = data_processing({"path": str(path), "measures": list(measures) or [COUNT], **options})
    json.dumps(result, allow_nan=False)
    return result


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


SHOP = "city,item,price\nBern,tea,2.5\nBern,cake,4\nOslo,tea,NA\nOslo,tea,3\n"


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_numbers(folder: Path, suffix: str) -> None:
    source = write(folder / "source.csv", SHOP)
    path = folder / f"shop{suffix}"
    if suffix == ".csv.gz":
        path.write_bytes(gzip.compress(SHOP.encode()))
    else:
        kind = {".csv": "CSV, HEADER", ".jsonl": "JSON", ".parquet": "PARQUET"}[suffix]
        duckdb.sql(f"COPY (FROM read_csv('{source}', nullstr='NA')) TO '{path}' (FORMAT {kind})")

    result = aggregate(
        path, COUNT, {"name": "sold", "function": "count", "column": "price"},
        {"name": "mean", "function": "mean", "column": "price"}, group_by=["city"], null_values=["NA", ""],
    )  # fmt: skip

    assert result["columns"] == ["city", "n", "sold", "mean"]
    assert result["rows"] == [["Bern", 2, 2, 3.25], ["Oslo", 2, 1, 3.0]]
    assert result["rows_read"] == 4


@pytest.mark.parametrize(
    ("op", "value", "left"),
    [
        ("eq", "tea", 3), ("ne", "tea", 1), ("in", ["tea", "cake"], 4), ("in", [], 0), ("not_in", ["tea"], 1),
        ("contains", "ak", 1), ("not_null", None, 4), ("is_null", None, 0), ("eq", "'; DROP TABLE x; --", 0),
    ],
)  # fmt: skip
def test_filters_keep_what_they_say(folder: Path, op: str, value: object, left: int) -> None:
    path = write(folder / "shop.csv", SHOP)

    result = aggregate(path, filters=[{"column": "item", "op": op, "value": value}])

    assert result["rows"] == [[left]]


def test_hostile_names_of_columns_are_only_names(folder: Path) -> None:
    hostile = "a\" FROM read_csv('/etc/passwd'); --"
    with (folder / "shop.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[hostile, "größe"], ["x", 1], ["x", 2]])

    result = aggregate(folder / "shop.csv", {"name": "Σ", "function": "sum", "column": "größe"}, group_by=[hostile])

    assert result["columns"] == [hostile, "Σ"]
    assert result["rows"] == [["x", 3]]


def test_dates_decimals_and_what_json_has_no_word_for(folder: Path) -> None:
    path = folder / "odd.parquet"
    duckdb.sql(
        "COPY (SELECT DATE '2013-02-28' AS day, 1.50::DECIMAL(9,2) AS price, 'nan'::DOUBLE AS nan, 'inf'::DOUBLE AS inf"
        f") TO '{path}' (FORMAT PARQUET)"
    )

    names = ("day", "price", "nan", "inf")
    result = aggregate(path, *({"name": f"max {n}", "function": "max", "column": n} for n in names))

    assert result["rows"] == [["2013-02-28", 1.5, None, None]]


def test_a_header_alone_has_no_group_and_no_row(folder: Path) -> None:
    path = write(folder / "empty.csv", "city,price\n")

    assert aggregate(path, group_by=["city"])["rows"] == []
    assert aggregate(path)["rows"] == [[0]]


def test_what_is_wrong_is_said_by_name(folder: Path) -> None:
    path = write(folder / "shop.csv", SHOP)
    (folder / "link.csv").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.csv")
    broken = write(folder / "broken.jsonl", '{"a": 1}\n{"a": \n')
    refusals: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (PermanentError, "has no column 'cty'; did you mean 'city'?", lambda: aggregate(path, group_by=["cty"])),
        (PermanentError, "has more than 1 groups of", lambda: aggregate(path, group_by=["city"], limit=1)),
        (PermanentError, "no file", lambda: aggregate(folder / "none.csv")),
        (PermanentError, "is not a regular file", lambda: aggregate(folder / "pipe.csv")),
        (PermanentError, "broken.jsonl", lambda: aggregate(broken)),
        (PermanentError, "shows no format; set format to", lambda: aggregate(write(folder / "shop.txt", SHOP))),
        (PathNotAllowed, "add its directory to TASKAPP_FILE_DIRS", lambda: aggregate(folder / "link.csv")),
        (PathNotAllowed, "is outside the directories", lambda: aggregate(folder / ".." / ".." / "x.csv")),
        (InvalidPayload, "needs a column", lambda: aggregate(path, {"name": "s", "function": "sum"})),
        (InvalidPayload, "same name", lambda: aggregate(path, COUNT, COUNT)),
        (InvalidPayload, "aggregation.groupby: extra inputs", lambda: aggregate(path, groupby=["city"])),
    ]

    for error, sentence, refused in refusals:
        with pytest.raises(error) as refusal:
            refused()
        assert sentence in str(refusal.value)


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-(10**9), 10**9)), min_size=1, max_size=60))
def test_groups_are_what_plain_python_makes_of_them(folder: Path, rows: list[tuple[str, int]]) -> None:
    path = write(folder / "any.csv", "key,value\n" + "".join(f"{key},{value}\n" for key, value in rows))

    result = aggregate(
        path, COUNT, {"name": "sum", "function": "sum", "column": "value"},
        {"name": "mean", "function": "mean", "column": "value"}, group_by=["key"],
    )  # fmt: skip

    for key, count, total, mean in result["rows"]:
        values = [value for name, value in rows if name == key]
        assert (count, total) == (len(values), sum(values))
        assert math.isclose(mean, sum(values) / len(values), rel_tol=1e-9, abs_tol=1e-9)
    assert {row[0] for row in result["rows"]} == {key for key, _ in rows}
