from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskapp.errors import PermanentError
from taskapp.tasks.data_processing import Aggregation, run, source
from taskapp.tasks.data_processing.model import aggregated
from tests.support import examples

COUNT = {"name": "n", "function": "count"}


def rows_of(path: Path, *measures: dict[str, Any], **options: Any) -> list[list[Any]]:
    """What the task would return, without its gate for paths."""
    aggregation = Aggregation.model_validate({"path": str(path), "measures": list(measures) or [COUNT], **options})
    rows = run.run(aggregation, path)
    result = aggregated(aggregation.columns, rows, seconds=0.0).model_dump()
    json.dumps(result, allow_nan=False)
    return result["rows"]


def file_of(folder: Path, content: str | bytes, name: str = "some.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def measure(function: str, column: str = "v", **fields: Any) -> dict[str, Any]:
    return {"name": f"{function} {column}", "function": function, "column": column, **fields}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        ("whole", [1, 3]), ("whole", [1.0, 2.5]), ("whole", [2.5, -9]), ("part", [1, 2.5]), ("part", [2.5, 10**30]),
        ("text", ["a", "ä'", ""]), ("text", ["zz"]), ("yes", [True]), ("yes", [True, False]),
    ],
)  # fmt: skip
def test_lists_keep_what_plain_python_keeps(tmp_path: Path, suffix: str, column: str, wanted: list[Any]) -> None:
    records = [
        {"whole": 1, "part": 1.0, "text": "a", "yes": True}, {"whole": 2, "part": 2.5, "text": "ä'", "yes": False},
        {"whole": 3, "part": -1.5, "text": "b", "yes": True}, {"whole": None, "part": None, "text": None, "yes": None},
    ]  # fmt: skip
    lines = file_of(tmp_path, "".join(json.dumps(record) + "\n" for record in records), "some.jsonl")
    path = tmp_path / f"some.{suffix}"
    if suffix != "jsonl":
        duckdb.connect().execute(f"COPY (FROM read_json('{lines}')) TO '{path}' (FORMAT {suffix})")
    held = [record[column] for record in records if record[column] is not None]

    for op, expected in (("in", sum(v in wanted for v in held)), ("not_in", sum(v not in wanted for v in held))):
        assert rows_of(path, filters=[{"column": column, "op": op, "value": wanted}]) == [[expected]]


def peak_mib(path: Path, fields: dict[str, Any]) -> tuple[int, str]:
    """Return the most memory that a process takes which runs this alone, and what is wrong with it, if so."""
    code = (
        "import json, re, sys; from pathlib import Path; from taskapp.tasks.data_processing import run\n"
        "from taskapp.tasks.data_processing import Aggregation\n"
        "aggregation = Aggregation.model_validate_json(sys.stdin.read())\n"
        "try: run.run(aggregation, Path(aggregation.path)); problem = ''\n"
        "except Exception as error: problem = str(error)\n"
        # Not getrusage: what it tells begins with the peak of the process that forked this one.
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "print(json.dumps([int(peak) >> 10, problem]))"
    )
    asked = json.dumps({"path": str(path), "measures": [COUNT], **fields})
    environment = {**os.environ, "TASKAPP_ENV_FILE": "", "TASKAPP_DATA_DIR": str(path.parent)}
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, input=asked, env=environment, capture_output=True, text=True, check=True, timeout=60)
    peak, problem = json.loads(done.stdout)
    return peak, problem


def test_a_hundred_thousand_values_stay_within_the_promised_memory(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a\n1\n")

    peak, problem = peak_mib(path, {"filters": [{"column": "a", "op": "in", "value": list(range(100_000))}]})

    assert problem == ""
    assert peak < 256


@pytest.mark.quick("csv")
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_too_many_columns_are_refused_within_the_promised_memory(tmp_path: Path, suffix: str) -> None:
    number = 11_000 if suffix == "parquet" else 200_000
    path = tmp_path / f"wide.{suffix}"
    names = [f"c{n}" for n in range(number)]
    if suffix == "csv":
        path.write_text(f"{','.join(names)}\n{','.join('1' * number)}\n")
    elif suffix == "jsonl":
        path.write_text(json.dumps(dict.fromkeys(names, 1)) + "\n")
    else:
        columns = ", ".join(f"1 AS {name}" for name in names)
        duckdb.connect().execute(f"COPY (SELECT {columns}) TO '{path}' (FORMAT parquet)")

    peak, problem = peak_mib(path, {"measures": [measure("count", "c1")]})

    assert peak < 256
    # A line of JSON that fits is read for the keys that are asked for alone.
    assert problem in (
        "" if suffix == "jsonl" else None,
        f"{str(path)!r} has {number:,} columns, but at most 10,000 are allowed; "
        "write those you need to a separate file",
        f"a row of {str(path)!r} is too long for 120MB of memory; write a file of the columns you need",
    )


def test_a_parquet_file_whose_description_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.parquet"
    duckdb.connect().execute(f"COPY (SELECT 1 AS a) TO '{path}' (FORMAT parquet)")
    monkeypatch.setattr(source, "MAX_FOOTER_BYTES", 10)

    with pytest.raises(
        PermanentError, match=r"has a footer of \d+ bytes, but at most 10 are allowed; write it with fewer"
    ):
        rows_of(path)


def test_keys_that_are_data_hide_no_column(tmp_path: Path) -> None:
    lines = "".join(json.dumps({f"k{n}": 1}) + "\n" for n in range(30_000))
    path = file_of(tmp_path, f'{lines}{{"late": 7}}\n', "some.jsonl")

    assert rows_of(path, measure("sum", "late")) == [[7]]
    with pytest.raises(PermanentError, match="has no column 'k30001'"):
        rows_of(path, measure("sum", "k30001"))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a,b\n1,2\n1,2,3,4\n5,6\n", "Line: 3 "),
        ("a,b\n" + "1,2\n" * 50_000 + "1\n" + "1,2\n", "Line: 50002 "),
        ('a,b\n1,"2\n3,4\n', "Value with unterminated quote found"),
        (b"a,b\n1,2\n3,\xff\xfe\n", "Line: 3 "),
        ('a,"b\n1,2\n', "line 1, the header"),
    ],
)
def test_a_malformed_csv_names_file_and_line(tmp_path: Path, content: str | bytes, line: str) -> None:
    path = file_of(tmp_path, content)

    with pytest.raises(PermanentError) as refusal:
        rows_of(path, measure("sum", "a"))

    assert str(refusal.value).startswith(f"cannot read {str(path)!r}: ")
    assert line in str(refusal.value)
    assert "Possible" not in str(refusal.value)


def test_a_malformed_json_line_is_named(tmp_path: Path) -> None:
    path = file_of(tmp_path, '{"a": 1}\n{"a": \n', "some.jsonl")

    with pytest.raises(PermanentError, match=r"some\.jsonl.*line [23]"):
        rows_of(path, measure("sum", "a"))


@pytest.mark.parametrize(
    ("values", "largest"),
    [
        (["9", "10", ""], 10),
        (["9", "10.5"], 10.5),
        (["9", "x"], "x"),
        (["007", "10"], "10"),
        (["12345678901234567890", "9"], "9"),
        (["1e3", "10"], 1000.0),
        (["1_000", "10"], "1_000"),
        ([" 5", "10"], 10.0),
        (["true", "FALSE"], True),
        (["2013-02-01", "2013-10-01"], "2013-10-01"),
        (["2013-01-01T10:00:00Z", "2013-01-01T05:00:00Z"], "2013-01-01T10:00:00Z"),
        (["", ""], None),
        (["nan", "1"], None),
    ],
)
def test_all_values_decide_what_a_csv_column_holds(tmp_path: Path, values: list[str], largest: object) -> None:
    path = file_of(tmp_path, "k,v\n" + "".join(f"k,{value}\n" for value in values))

    found = rows_of(path, measure("max"))[0][0]

    assert found == largest
    assert type(found) is type(largest)


def test_a_text_late_in_the_file_makes_the_whole_column_text(tmp_path: Path) -> None:
    path = file_of(tmp_path, "v\n" + "9\n" * 30_000 + "10\nx\n")

    assert rows_of(path, group_by=["v"]) == [["10", 1], ["9", 30_000], ["x", 1]]


def test_a_number_after_many_missing_values_makes_numbers(tmp_path: Path) -> None:
    path = file_of(tmp_path, "v,w\n" + "NA,1\n" * 30_000 + "9,1\n10,1\n")

    assert rows_of(path, measure("max"), null_values=["NA"]) == [[10]]


def test_json_texts_of_digits_stay_texts(tmp_path: Path) -> None:
    lines = [{"zip": "3011", "a/b~c": 1}, {"zip": "8001"}, {"zip": None, "a/b~c": 2.5}, {}]
    path = file_of(tmp_path, "".join(json.dumps(line) + "\n" for line in lines), "some.jsonl")

    assert rows_of(path, measure("sum", "a/b~c"), group_by=["zip"]) == [["3011", 1.0], ["8001", None], [None, 2.5]]
    with pytest.raises(PermanentError, match="cannot compare them with 3011"):
        rows_of(path, filters=[{"column": "zip", "op": "eq", "value": 3011}])


def test_a_key_that_only_late_lines_have_is_a_column(tmp_path: Path) -> None:
    path = file_of(tmp_path, '{"a": 1}\n' * 25_000 + '{"b": 2}\n', "some.jsonl")

    assert rows_of(path, measure("sum", "b"), measure("count", "b")) == [[2, 1]]
    with pytest.raises(PermanentError, match="has no column 'c'"):
        rows_of(path, measure("sum", "c"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("e.csv", ""), ("e.jsonl", ""), ("h.csv", "g,v"), ("h.csv", "g,v\r\n"),
     ("n.csv", "g,v\n,\n"), ("n.jsonl", '{"g":null,"v":null}')],
)  # fmt: skip
def test_nothing_to_count_is_no_error(tmp_path: Path, name: str, content: str) -> None:
    path = file_of(tmp_path, content, name)
    lines = int(name.startswith("n"))
    everything = [measure(f) for f in ("sum", "mean", "min", "max", "median", "stddev")]

    assert rows_of(path, *everything, measure("distinct"), measure("count"), COUNT) == [[*[None] * 6, 0, 0, lines]]
    assert rows_of(path, measure("sum"), group_by=["g"]) == [[None, None]] * lines
    assert rows_of(path, filters=[{"column": "v", "op": "gt", "value": 3}]) == [[0]]
    assert rows_of(path, filters=[{"column": "v", "op": "eq", "value": "x"}]) == [[0]]


def test_columns_that_differ_in_case_alone_are_two(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a,A,n\n1,2,3\n")
    jsonl = file_of(tmp_path, '{"a": 1, "A": 2, "n": 3}', "some.jsonl")

    for one in (path, jsonl):
        assert rows_of(one, measure("sum", "A"), {"name": "N", "function": "sum", "column": "n"}, group_by=["a"]) == [
            [1, 2, 3]
        ]


def test_a_measure_may_have_the_name_of_a_column(tmp_path: Path) -> None:
    path = file_of(tmp_path, "g,v\na,1\na,5\nb,9\n")
    above = {"column": "v", "op": "gt", "value": 1}

    assert rows_of(path, {"name": "v", "function": "sum", "column": "v"}, group_by=["g"], filters=[above]) == [
        ["a", 5], ["b", 9],
    ]  # fmt: skip


def test_a_column_that_is_there_twice_is_refused_when_used(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a,b,a\n1,2,3\n")

    assert rows_of(path, measure("sum", "b")) == [[2]]
    with pytest.raises(PermanentError, match="has 2 columns 'a'; rename all but one"):
        rows_of(path, measure("sum", "a"))


@pytest.mark.parametrize("name", ["some.csv", "some.jsonl", "some.parquet"])
def test_folders_named_like_partitions_add_no_column(tmp_path: Path, name: str) -> None:
    path = tmp_path / "year=2013" / name
    path.parent.mkdir()
    duckdb.sql(f"COPY (SELECT 1 AS a) TO '{path}' (FORMAT {path.suffix[1:].replace('jsonl', 'json')})")

    with pytest.raises(PermanentError, match="has no column 'year'"):
        rows_of(path, group_by=["year"])


def test_a_name_that_is_a_pattern_reads_no_other_file(tmp_path: Path) -> None:
    file_of(tmp_path, "a\n1\n", "shop1.csv")
    path = file_of(tmp_path, "a\n7\n", "shop*.csv")

    with pytest.raises(PermanentError, match="is a pattern; rename the file"):
        rows_of(path, measure("sum", "a"))


def test_tabs_semicolons_quotes_and_line_ends(tmp_path: Path) -> None:
    tabs = file_of(tmp_path, "a\tb\n1,5\t2\n", "some.tsv")
    semicolons = file_of(tmp_path, '\ufeffa;b\r\n"x;""y""\r\nz";2\r\n')

    assert rows_of(tabs, measure("max", "a")) == [["1,5"]]
    assert rows_of(semicolons, measure("max", "a"), delimiter=";") == [['x;"y"\r\nz']]


def test_the_result_can_be_ordered_by_any_of_its_columns(tmp_path: Path) -> None:
    path = file_of(tmp_path, "g,v\na,1\nb,5\nc,\nd,5\n")

    assert rows_of(path, measure("sum"), group_by=["g"], order_by=[{"column": "sum v", "descending": True}]) == [
        ["b", 5], ["d", 5], ["a", 1], ["c", None],
    ]  # fmt: skip


def test_a_quantile_is_close(tmp_path: Path) -> None:
    path = file_of(tmp_path, "v\n" + "".join(f"{n}\n" for n in range(10_001)))

    found = rows_of(path, measure("quantile", quantile=0.95))[0][0]

    assert abs(found - 9_500) < 50


def test_zstandard_and_times_with_zones(tmp_path: Path) -> None:
    path, parquet = tmp_path / "some.csv.zst", tmp_path / "some.parquet"
    select = "SELECT 'x' AS g, TIMESTAMPTZ '2013-01-01 10:00:00+02' AS at"
    duckdb.sql(f"COPY ({select}) TO '{path}' (HEADER, COMPRESSION zstd)")
    duckdb.sql(f"COPY ({select}) TO '{parquet}'")

    assert rows_of(path, group_by=["g"]) == [["x", 1]]
    assert rows_of(parquet, measure("max", "at")) == [["2013-01-01T08:00:00+00:00"]]


def test_the_database_sees_the_one_file_and_no_network(tmp_path: Path) -> None:
    path, other = file_of(tmp_path, "a\n1\n"), file_of(tmp_path, "a\n1\n", "other.csv")

    with run._locked_database(path) as database:
        for forbidden in (
            f"SELECT * FROM read_csv('{other}')",
            "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
            f"COPY (SELECT 1) TO '{tmp_path / 'new.csv'}'",
            f"ATTACH '{tmp_path / 'new.db'}'",
            "INSTALL httpfs",
            "SET memory_limit = '8GB'",
            "SET enable_external_access = true",
        ):
            with pytest.raises(duckdb.Error):
                database.execute(forbidden)
        assert database.execute(f"SELECT count(*) FROM read_csv('{path}')").fetchall() == [(1,)]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["other.csv", "some.csv"]


@pytest.fixture
def soft_limit() -> Iterator[threading.Timer]:
    """Celery's way: a signal whose handler raises in the main thread."""

    def expire(*_: object) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, expire)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1))
    yield timer
    timer.cancel()
    timer.join()
    signal.signal(signal.SIGUSR1, before)


def test_a_soft_time_limit_ends_the_query_at_once(tmp_path: Path, soft_limit: threading.Timer) -> None:
    path = file_of(tmp_path, "a\n1\n")
    started = time.monotonic()

    with run._locked_database(path) as database:
        query = functools.partial(database.execute, "SELECT sum(hash(i)) FROM range(300_000_000_000) r(i)")
        soft_limit.start()
        with pytest.raises(SoftTimeLimitExceeded):
            run._interruptible(database, query)

    assert time.monotonic() - started < 20


VALUES = st.one_of(st.none(), st.integers(-(2**40), 2**40))
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0\x1f"), min_size=1, max_size=8)


@settings(max_examples=examples(60), deadline=None)
@given(rows=st.lists(st.tuples(NAMES, VALUES), max_size=30), column=NAMES)
@example(rows=[("a\nb", 1), ('"', None)], column="0")
@example(rows=[("NULL", 1), (" ", 2), ("#", 3)], column="a'b\"c")
def test_json_lines_give_what_plain_python_gives(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int | None]], column: str
) -> None:
    group = column + "!"
    lines = "".join(json.dumps({group: name, column: value}) + "\n" for name, value in rows)
    path = file_of(tmp_path_factory.mktemp("rows"), lines, "some.jsonl")

    found = rows_of(path, COUNT, measure("sum", column), measure("min", column), group_by=[group])

    expected = []
    for name in {name for name, _ in rows}:
        values = [value for key, value in rows if key == name and value is not None]
        count = sum(key == name for key, _ in rows)
        expected.append([name, count, sum(values) if values else None, min(values, default=None)])
    assert sorted(found, key=repr) == sorted(expected, key=repr)
