"""A pytest plugin for their tests: marks those we expect to fail, and writes down how each one ended.

``UPSTREAM_MARKS`` names a JSON file: ``{"skip": {pattern: reason}, "xfail": {pattern: reason}, "each": N, "also":
[pattern]}``. A pattern is that of ``fnmatch``. Every ``N``th test runs, and those of
``also``. ``UPSTREAM_REPORT`` names the file for the outcomes, one JSON a line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

MARKS = json.loads(Path(os.environ["UPSTREAM_MARKS"]).read_text())


def pytest_configure(config: pytest.Config) -> None:
    for marker in ("flaky", "amqp", "env(name)"):
        config.addinivalue_line("markers", f"{marker}: theirs")


def first_fit(test: str, patterns: Iterable[str]) -> str | None:
    """Return the first of ``patterns`` that fits the test, without its parameters perhaps, or its class."""
    names = test, test.partition("[")[0], test.partition("[")[0].rpartition("::")[0]
    return next((each for each in patterns if any(fnmatchcase(name, each) for name in names)), None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    unused = {*MARKS["skip"], *MARKS["xfail"]}
    chosen = []
    for number, item in enumerate(items):
        if (pattern := first_fit(item.nodeid, MARKS["skip"])) is not None:
            item.add_marker(pytest.mark.skip(reason=MARKS["skip"][pattern]))
            unused.discard(pattern)
        elif (pattern := first_fit(item.nodeid, MARKS["xfail"])) is not None:
            item.add_marker(pytest.mark.xfail(reason=MARKS["xfail"][pattern], strict=True))
            unused.discard(pattern)
        if number % MARKS["each"] == 0 or first_fit(item.nodeid, MARKS["also"]) is not None:
            chosen.append(item)
    Path(os.environ["UPSTREAM_REPORT"] + ".unused").write_text("\n".join(sorted(unused)))
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        line = {"id": report.nodeid, "outcome": outcome, "seconds": report.duration, "text": str(report.longrepr or "")}
        with Path(os.environ["UPSTREAM_REPORT"]).open("a") as file:
            file.write(json.dumps(line) + "\n")
