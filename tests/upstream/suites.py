"""Runs their tests in a process of its own, and what is known about them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import clean_environment
from tests.upstream.sources import source

PLUGINS = Path(__file__).parent / "plugins"
IMPORT = re.compile(r"^(\s*)from celery import (?:Celery|(.*), Celery|Celery, (.*))$", re.MULTILINE)
"""The one line of a module that changes."""
TIMES = 3
"""How often a test may run, on a busy machine, until it passes."""


@dataclass(frozen=True)
class Suite:
    """Tests of ``package``: those in ``folder`` of its source distribution."""

    package: str
    folder: str
    modules: tuple[str, ...] = ()
    """Those that apply; empty: all."""
    plugins: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    """Those which fail, or say nothing, with stock Celery as well, and why."""
    differences: dict[str, str] = field(default_factory=dict)
    """Those which fail on taskapp alone, and why."""
    failed_once: tuple[str, ...] = ()
    """Those which showed a fault of taskapp that has been mended; they are in each sample."""


@dataclass(frozen=True)
class Run:
    """How the tests of a run ended."""

    outcomes: dict[str, dict[str, str]]
    """By id: ``outcome`` (passed, failed, skipped, xfailed), ``text``."""
    output: str

    def failed(self) -> dict[str, str]:
        return {test: each["text"] for test, each in self.outcomes.items() if each["outcome"] == "failed"}

    def counts(self) -> dict[str, int]:
        every = [each["outcome"] for each in self.outcomes.values()]
        return {outcome: every.count(outcome) for outcome in sorted({*every})}


def on_taskapp(text: str) -> str:
    """Return the source of a module with its one line changed."""

    def changed(found: re.Match[str]) -> str:
        others = found[2] or found[3]
        line = f"{found[1]}from taskapp import Celery"
        return f"{found[1]}from celery import {others}\n{line}" if others else line

    return IMPORT.sub(changed, text)


def copied(suite: Suite, directory: Path, app: str) -> Path:
    """Copy their tests into ``directory``, with the one line changed for ``taskapp``."""
    top = suite.folder.split("/")[0]
    shutil.copytree(source(suite.package) / top, directory / top, dirs_exist_ok=True)
    if (docs := source(suite.package) / "docs").exists() and not (directory / "docs").exists():
        (directory / "docs").symlink_to(docs)
    if app == "taskapp":
        for module in (directory / suite.folder).rglob("*.py"):
            module.write_text(on_taskapp(module.read_text()))
    return directory


def run(
    suite: Suite, directory: Path, *tests: str, app: str = "taskapp", times: int = TIMES, each: int = 1, **env: str
) -> Run:
    """Run ``tests`` of ``suite``, by default all; what fails runs again, up to ``times`` in all.

    Args:
        each: Run only every ``each``th test, and those that failed once.
    """
    copied(suite, directory, app)
    last = _run(suite, directory, tests or suite.modules or (suite.folder,), app, env, each)
    outcomes = dict(last.outcomes)
    for _ in range(times - 1):
        if not (failed := sorted(last.failed())):
            break
        last = _run(suite, directory, failed, app, env)
        outcomes |= last.outcomes
    return Run(outcomes, last.output)


def _run(suite: Suite, directory: Path, tests: Sequence[str], app: str, env: dict[str, str], each: int = 1) -> Run:
    report, marks = directory / "report", directory / "marks.json"
    report.unlink(missing_ok=True)
    differences = suite.differences if app == "taskapp" else {}
    marks.write_text(json.dumps({"skip": suite.skipped, "xfail": differences, "each": each, "also": suite.failed_once}))
    variables = clean_environment(
        UPSTREAM_APP=app, UPSTREAM_MARKS=str(marks), UPSTREAM_REPORT=str(report),
        TASKAPP_DATA_DIR=str(directory / "data"), **env,
    )  # fmt: skip
    # Their tests start programs by name.
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), variables["PATH"]])
    variables["PYTHONPATH"] = os.pathsep.join([str(directory), str(PLUGINS)])
    plugins = [word for name in ("upstream_marks", *suite.plugins) for word in ("-p", name)]
    argv = [
        sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(directory), "-q", "-p", "no:cacheprovider",
        "-o", "python_classes=test_*", "--timeout", "300", *plugins, *suite.options, *tests,
    ]  # fmt: skip
    with (directory / "output").open("wb") as output:
        code = subprocess.run(argv, cwd=directory, env=variables, stdout=output, stderr=output, check=False).returncode
    text = (directory / "output").read_text(errors="replace")
    lines = report.read_text().splitlines() if report.exists() else []
    outcomes: dict[str, dict[str, str]] = {}
    for line in map(json.loads, lines):
        if outcomes.get(line["id"], {}).get("outcome") != "failed":  # else its end was reported before
            outcomes[line["id"]] = line
    assert outcomes, f"pytest ended with {code}: {text}"
    return Run(outcomes, text)
