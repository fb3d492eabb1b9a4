from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from taskapp.errors import PermanentError
from taskapp.tasks.data_processing.model import MAX_FILTER_VALUES, Aggregation
from taskapp.tasks.data_processing.run import build_query
from taskapp.tasks.data_processing.source import Kind, Source

COUNT = {"name": "n", "function": "count"}
HOSTILE = 'x"; DROP TABLE y; --'


def asked(**fields: Any) -> Aggregation:
    return Aggregation.model_validate({"path": "x.csv", "measures": [COUNT], **fields})


def table(**kinds: Kind) -> Source:
    return Source("SELECT 1 FROM f(?)", ["the path"], dict(kinds))


def test_neither_names_nor_values_become_sql() -> None:
    aggregation = asked(
        group_by=[HOSTILE],
        measures=[{"name": HOSTILE + "2", "function": "max", "column": HOSTILE}],
        filters=[{"column": HOSTILE, "op": "in", "value": [HOSTILE, "b"]}],
        order_by=[{"column": HOSTILE + "2", "descending": True}],
    )

    query, values = build_query(aggregation, Source("SELECT 1 FROM f(?)", ["the path"], {HOSTILE: "text"}))

    assert "DROP" not in query
    assert values == ["the path", [HOSTILE, "b"]]
    assert query == (
        "SELECT c0, max(c0), count(*) FROM (SELECT 1 FROM f(?)) WHERE c0 IN (SELECT unnest(?)) "
        "GROUP BY 1 ORDER BY 2 DESC NULLS LAST, 1 NULLS LAST LIMIT 10001"
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [("integer", "5"), ("number", True), ("text", 5), ("text", False), ("boolean", "true"), ("boolean", 1)],
)
def test_a_filter_converts_nothing_silently(kind: Kind, value: object) -> None:
    aggregation = asked(filters=[{"column": "a", "op": "eq", "value": value}])

    with pytest.raises(PermanentError) as refusal:
        build_query(aggregation, table(a=kind))

    assert str(refusal.value) == f"column 'a' holds {kind} values; a filter cannot compare them with {value!r}"


@pytest.mark.parametrize("kind", ["text", "integer", "number", "empty"])
def test_a_list_of_values_is_one_value_however_long(kind: Kind) -> None:
    wanted: list[Any] = [str(n) if kind == "text" else n for n in range(MAX_FILTER_VALUES)]

    query, values = build_query(asked(filters=[{"column": "a", "op": "in", "value": wanted}]), table(a=kind))

    assert query.count("?") == len(values) == 2


def test_a_list_of_dates_is_bounded() -> None:
    filters = [{"column": "a", "op": "in", "value": ["2026-01-01"] * 1_001}]

    with pytest.raises(PermanentError) as refusal:
        build_query(asked(filters=filters), table(a="other"))

    assert str(refusal.value) == (
        "a filter compares column 'a', which holds neither text, numbers nor booleans, with 1,001 values, "
        "but at most 1,000 are allowed; use a range (ge and lt)"
    )


def test_there_is_no_mean_of_text() -> None:
    aggregation = asked(measures=[{"name": "m", "function": "mean", "column": "a"}])

    with pytest.raises(PermanentError, match="column 'a' holds text, which has no mean; in CSV, name the texts"):
        build_query(aggregation, table(a="text"))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"order_by": [{"column": "nr"}]}, "no column 'nr'; did you mean 'n'"),
        ({"measures": [{"name": "q", "function": "quantile", "column": "a"}]}, "needs the field quantile"),
        ({"measures": [{"name": "q", "function": "sum", "column": "a", "quantile": 0.5}]}, "other function takes it"),
        ({"filters": [{"column": "a", "op": "eq"}]}, "use 'is_null'"),
        ({"filters": [{"column": "a", "op": "not_in", "value": ["x", None]}]}, "use 'is_null'"),
        ({"filters": [{"column": "a", "op": "is_null", "value": 1}]}, "takes no value"),
        ({"filters": [{"column": "a", "op": "in", "value": "x"}]}, "needs a list"),
        ({"delimiter": '"'}, "delimiter"),
        (
            {"filters": [{"column": "a", "op": "in", "value": list(range(50_001))}] * 2},
            "the filters name 100,002 values, but at most 100,000 are allowed; use ranges",
        ),
        ({"filters": [{"column": "a", "op": "eq", "value": 1}] * 101}, "at most 100 items"),
        ({"group_by": [f"c{n}" for n in range(101)]}, "at most 100 items"),
        ({"measures": [{"name": f"n{n}", "function": "count"} for n in range(201)]}, "at most 200 items"),
        ({"null_values": ["x"] * 101}, "at most 100 items"),
        ({"null_values": []}, "null_values"),
        ({"limit": 100_001}, "limit"),
        ({"measures": []}, "measures"),
    ],
)
def test_what_makes_no_sense_is_refused_when_submitted(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        asked(**fields)
