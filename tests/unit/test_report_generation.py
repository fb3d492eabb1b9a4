from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib import import_module
from typing import Any
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError

from taskapp.errors import PermanentError
from taskapp.tasks.report_generation import Leader, Report, Total
from taskapp.tasks.report_generation.totals import tile_of, total_of

HOSTILE = """</script ></script><img src=x onerror="alert('1')"> id="a" url(#b) #5b6577 $x_1$ ]]>"""


def report(*sections: dict[str, Any], **fields: Any) -> Report:
    return Report.model_validate({"title": "t", "output_path": "r.html", "sections": list(sections), **fields})


def literal(rows: list[list[Any]], *, names: int = 1, kind: str | None = None, **fields: Any) -> dict[str, Any]:
    width = len(rows[0]) if rows else names + 1
    table = {"columns": [f"column {index}" for index in range(width)], "rows": rows, "names": names, **fields}
    return {"heading": "h", "literal": table, "chart": {"kind": kind, "unit": "m"} if kind else None}


def page(report: Report, entries: list[Any]) -> str:
    from taskapp.tasks.report_generation import run  # imports matplotlib, which every process of a run would wait for

    return run.page(report, entries)


def charts(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def texts(chart: ElementTree.Element) -> list[str]:
    return ["".join(one.itertext()) for one in chart.iter("{http://www.w3.org/2000/svg}text")]


def cells(html: str) -> list[str]:
    return re.findall(r"<td[^>]*>(.*?)</td>", html)


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


ONE = [["Jan", 3], ["Feb", None], ["Mar", 1]]
TWO = [["Jan", "JFK", 3], ["Jan", "EWR", 4], ["Feb", "JFK", 5]]


@pytest.mark.parametrize(
    ("kind", "rows", "names"),
    [("line", ONE, 1), ("bar", ONE, 1), ("horizontal_bar", ONE, 1), ("stacked_bar", ONE, 1),
     ("line", TWO, 2), ("bar", TWO, 2), ("stacked_bar", TWO, 2), ("heatmap", TWO, 2)],
)  # fmt: skip
def test_every_kind_draws_names_series_and_unit(kind: str, rows: list[list[Any]], names: int) -> None:
    (chart,) = charts(page(report(literal(rows, names=names, kind=kind)), []))

    assert chart.get("role") == "img"
    assert {"Jan", "Feb", "m"} <= set(texts(chart))
    assert names == 1 or {"JFK", "EWR"} <= set(texts(chart))


def test_a_chart_says_in_words_what_it_shows() -> None:
    (chart,) = charts(page(report(literal(TWO, names=2, kind="stacked_bar")), []))

    assert chart.get("aria-label") == ("h: stacked bar chart of column 2, 3 values from 3 (Jan, JFK) to 5 (Feb, JFK) m")


@pytest.mark.parametrize("kind", ["line", "bar", "horizontal_bar", "stacked_bar"])
@pytest.mark.parametrize("rows", [[], [["only", 1]], [["none", None]], [["below", -5.5], ["", 0]]])
def test_few_missing_and_negative_values_are_no_error(kind: str, rows: list[list[Any]]) -> None:
    assert len(charts(page(report(literal(rows, kind=kind)), []))) == (1 if rows else 0)


def test_many_names_are_thinned_so_that_they_can_be_read() -> None:
    rows = [[f"a rather long name {index}", index] for index in range(500)]

    (chart,) = charts(page(report(literal(rows, kind="line")), []))

    assert len([text for text in texts(chart) if text.startswith("a rather")]) <= 6


@pytest.mark.parametrize(
    ("kind", "names", "series", "most"),
    [
        ("heatmap", 400, 400, "100,000 values, not 400 x 400"),
        ("heatmap", 20_000, 20_000, "100,000 values, not 20,000 x 20,000"),
        ("line", 100_001, 1, "100,000 values, not 100,001 x 1"),
        ("bar", 2_001, 1, "2,000 values, not 2,001 x 1"),
        ("stacked_bar", 300, 7, "2,000 values, not 300 x 7"),
        ("horizontal_bar", 1_001, 1, "1,000 values, not 1,001 x 1"),
    ],
)
def test_a_chart_of_too_many_values_is_refused_before_it_is_made(
    kind: str, names: int, series: int, most: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("taskapp.tasks.report_generation.charts"), "Figure", None)
    rows: list[list[Any]] = [[n, n % series, 1] if series > 1 else [n, 1] for n in range(names)]

    with pytest.raises(PermanentError) as refusal:
        page(report(literal(rows, names=2 if series > 1 else 1, kind=kind)), [])

    assert str(refusal.value) == (f"a {kind} chart shows at most {most}; group more coarsely, filter, or give a limit")


def test_many_names_beside_a_heatmap_are_thinned() -> None:
    [chart] = charts(page(report(literal([[n, 0, n] for n in range(1_000)], names=2, kind="heatmap")), []))

    assert len(texts(chart)) < 80


def test_hostile_text_stays_text_everywhere() -> None:
    rows = [[HOSTILE, HOSTILE, 1], ["b", HOSTILE, 2]]
    everywhere = [
        {**literal(rows, names=2), "heading": HOSTILE, "text": HOSTILE, "chart": {"kind": kind, "unit": HOSTILE}}
        for kind in ("line", "bar", "stacked_bar", "heatmap")
    ]
    tiles = [{"name": HOSTILE, "value": HOSTILE}]
    html = page(report(*everywhere, title=HOSTILE, subtitle=HOSTILE, source=HOSTILE, tiles=tiles), [])

    tags = Tags(html).seen
    assert [tag for tag, _ in tags if tag in ("img", "script", "iframe", "object", "link")] == ["script"]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert all(HOSTILE in texts(chart) for chart in charts(html))
    data = json.loads(html.split('id="report-data">')[1].split("</script>")[0])
    assert data["tiles"] == {HOSTILE: HOSTILE}
    assert data["sections"][0]["rows"] == rows


def test_nothing_comes_from_elsewhere_and_no_id_is_there_twice() -> None:
    html = page(report(*(literal(TWO, names=2, kind=kind) for kind in ("line", "bar", "heatmap", "line"))), [])

    links = [
        value or "" for _, given in Tags(html).seen for name, value in given.items() if name.endswith(("href", "src"))
    ]
    ids = [given["id"] for _, given in Tags(html).seen if "id" in given]
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    assert all(link[1:] in ids for link in links if link.startswith("#"))
    assert len(ids) == len(set(ids))


def test_the_same_report_is_the_same_text() -> None:
    one = report(literal(TWO, names=2, kind="bar"), literal(ONE, kind="line"))

    assert page(one, []) == page(one, [])


def test_colours_follow_the_page_by_night() -> None:
    html = page(report(literal(ONE, kind="bar")), [])

    assert "prefers-color-scheme: dark" in html
    assert "var(--accent)" in html.split("<svg")[1]


def test_numbers_are_shown_for_people_and_names_as_they_are() -> None:
    html = page(report(literal([[2013, 1234.5, 0.125], [None, None, True]], decimals=[0, 2])), [])

    assert cells(html) == ["2013", "1,234", "0.12", "\N{EN DASH}", "\N{EN DASH}", "True"]


def test_tiles_name_the_leader_and_count_what_differs() -> None:
    rows = [{"o": "EWR", "n": 3}, {"o": "JFK", "n": 2}, {"o": "JFK", "n": 2}, {"o": None, "n": None}]
    flights = Total(name="n", function="sum", column="n")

    assert tile_of(rows, Leader(name="busiest", column="o", total=flights)) == "JFK"
    assert tile_of([], Leader(name="busiest", column="o", total=flights)) is None
    assert tile_of(rows, Total(name="airports", function="distinct", column="o")) == 2
    assert total_of([{"o": "b"}, {"o": 5}, {"o": "a"}], Total(name="last", function="max", column="o")) == "b"


def test_what_cannot_be_drawn_or_added_is_said() -> None:
    refusals = {
        "a heatmap chart needs 2 columns of names and one of numbers": literal(ONE, kind="heatmap"),
        "a horizontal_bar chart needs 1 columns of names": literal(TWO, names=2, kind="horizontal_bar"),
        "a chart cannot draw 'x'; it needs numbers": literal([["a", "x"]], kind="bar"),
        "shows at most 8 series, not 9": literal([["a", f"s{n}", n] for n in range(9)], names=2, kind="line"),
    }
    for sentence, section in refusals.items():
        with pytest.raises(PermanentError) as refusal:
            page(report(section), [])
        assert sentence in str(refusal.value)
    with pytest.raises(PermanentError, match="total 's' needs numbers, not 'x'"):
        total_of([{"v": 1}, {"v": "x"}], Total(name="s", function="sum", column="v"))


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"heading": "h"}, "needs either a summary or a literal table"),
        (literal([["a", 1], ["b"]]), "row 1 has 1 values for 2 columns"),
        (literal([["a", float("inf")]]), "finite number"),
        ({**literal(ONE), "chart": {"kind": "pie"}}, "'line', 'bar', 'stacked_bar', 'horizontal_bar' or 'heatmap'"),
    ],
)
def test_what_makes_no_sense_is_refused_when_submitted(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        report(section)
