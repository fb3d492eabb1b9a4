from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskapp.errors import PathNotAllowed, PermanentError
from taskapp.settings import forget_settings
from taskapp.tasks import report_generation
from taskapp.tasks.report_generation import Summary, Total
from taskapp.tasks.report_generation.totals import summarise, total_of
from taskapp.tasks.shared.files import LEFTOVER_SUFFIX, written_at_once

HOSTILE = "</script><script>alert(1)</script> & $x_1$"
FLIGHTS = {"name": "flights", "function": "sum", "column": "n"}
DELAY = {"name": "delay", "function": "mean", "column": "delay", "weight": "n", "decimals": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TASKAPP_FILE_DIRS", str(tmp_path))
    forget_settings()
    yield tmp_path
    forget_settings()


def part(*rows: list[Any]) -> dict[str, Any]:
    return {"columns": ["carrier", "hour", "n", "delay"], "rows": list(rows), "rows_read": 9, "seconds": 0.1}


PARTS = [part(["UA", 9, 3, 10.0], [HOSTILE, 5, 1, None]), part(["UA", 5, 1, 2.0])]


def report(path: Path, **changes: Any) -> dict[str, Any]:
    kinds = ("line", "bar", "horizontal_bar")
    sections = [
        {
            "heading": f"{kind} {HOSTILE}",
            "summary": {"group_by": ["carrier"], "totals": [FLIGHTS, DELAY], "order_by": "flights"},
            "chart": {"kind": kind, "unit": HOSTILE},
        }
        for kind in kinds
    ]
    heat = {
        "heading": "heat",
        "summary": {"group_by": ["carrier", "hour"], "totals": [FLIGHTS]},
        "chart": {"kind": "heatmap"},
    }
    return {
        "title": HOSTILE, "output_path": str(path), "label_column": "month", "labels": ["Jan", "Feb"],
        "tiles": [FLIGHTS, DELAY], "sections": [*sections, heat], **changes,
    }  # fmt: skip


def test_the_report_holds_the_numbers_for_people_and_for_programs(folder: Path) -> None:
    path = folder / "deep" / "report.html"

    written = report_generation(PARTS, report(path))

    html = path.read_text()
    data = json.loads(re.search(r'id="report-data">(.*?)</script>', html, re.DOTALL).group(1))
    assert data["tiles"] == {"flights": 5, "delay": 8.0}
    assert data["sections"][0]["rows"] == [["UA", 4, 8.0], [HOSTILE, 1, None]]
    assert html.count('<svg role="img"') == 4
    assert written["size_bytes"] == path.stat().st_size


def test_what_the_data_say_stays_text(folder: Path) -> None:
    report_generation(PARTS, report(folder / "report.html"))

    html = (folder / "report.html").read_text()
    assert "<script>alert" not in html
    assert html.count("</script>") == 1


def test_nothing_is_loaded_from_elsewhere_and_a_second_run_writes_the_same(folder: Path) -> None:
    path = folder / "report.html"

    first = report_generation(PARTS, report(path))
    second = report_generation(PARTS, report(path))

    assert first == second
    assert re.findall(r'(?:src|href|url)\s*[=(]\s*"?(https?:[^"\s)]+)', path.read_text()) == []
    ids = re.findall(r' id="([^"]+)"', path.read_text())
    assert len(ids) == len(set(ids))


def test_what_is_wrong_is_said_by_name(folder: Path) -> None:
    with pytest.raises(PermanentError, match="there are 1 parts for 2 labels"):
        report_generation(PARTS[:1], report(folder / "report.html"))
    with pytest.raises(PermanentError, match="no part has a column 'm'"):
        report_generation(PARTS, report(folder / "report.html", tiles=[{**FLIGHTS, "column": "m"}]))
    with pytest.raises(PathNotAllowed):
        report_generation(PARTS, report(folder.parent / "report.html"))
    assert list(folder.iterdir()) == []


def test_a_write_cut_short_leaves_the_old_file_and_nothing_else(folder: Path) -> None:
    path = folder / "report.html"
    path.write_text("old")

    def cut_short() -> None:
        with written_at_once(path) as file:
            file.write("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_short()

    assert path.read_text() == "old"
    assert [one.name for one in folder.iterdir() if one.name.endswith(LEFTOVER_SUFFIX)] == []


def test_a_mean_counts_each_row_by_its_weight_and_skips_what_is_missing() -> None:
    rows = [{"d": 10.0, "n": 3}, {"d": 2.0, "n": 1}, {"d": None, "n": 7}]
    mean = Total(name="mean", function="mean", column="d", weight="n")

    assert total_of(rows, mean) == 8.0
    assert total_of(rows[2:], mean) is None
    assert total_of(rows, Total(name="c", function="count", column="d")) == 2
    assert total_of(rows, Total(name="m", function="max", column="n")) == 7


def test_largest_first_and_no_more_than_asked_for() -> None:
    rows = [{"k": key, "n": number} for key, number in (("a", 1), ("b", 5), ("c", None), ("a", 2))]
    total = Total(name="sum", function="sum", column="n")

    table = summarise(rows, Summary(group_by=["k"], totals=[total], order_by="sum"))

    assert table.rows == [["b", 5], ["a", 3], ["c", None]]
    assert summarise(rows, Summary(group_by=["k"], totals=[total], limit=1)).rows == [["a", 3]]
