from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import pytest

from taskapp.demo.flights import split_by_month

HEADER = ["year", "month", "dep_delay", "carrier"]


def archive(tmp_path: Path, rows: list[list[str]]) -> Path:
    text = "\n".join(",".join(row) for row in [HEADER, *rows])
    path = tmp_path / "flights.csv.zip"
    with zipfile.ZipFile(path, "w") as box:
        box.writestr("flights.csv", text)
    return path


def test_each_row_goes_to_its_month_and_is_counted(tmp_path: Path) -> None:
    rows = [["2013", "1", "4", "UA"], ["2013", "12", "NA", "UA"], ["2013", "1", "-2", "B6"]]

    paths, truth = split_by_month(archive(tmp_path, rows), tmp_path)

    assert [path.name for path in paths][::11] == ["flights-2013-01.csv", "flights-2013-12.csv"]
    with paths[0].open() as january:
        assert list(csv.reader(january)) == [HEADER, rows[0], rows[2]]
    assert (truth.flights, truth.departed, truth.cancelled) == (3, 2, 1)
    assert truth.mean_delay_minutes == pytest.approx(1.0)
    assert truth.by_month == {"Jan": 2, "Dec": 1}
    assert truth.by_carrier == {"UA": 2, "B6": 1}
