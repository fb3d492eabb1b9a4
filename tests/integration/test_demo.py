"""The main job as a newcomer runs it, and what is left when it is interrupted."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from taskapp.demo.flights import FlightsNotInstalled, archive_path
from tests.support import Process, clean_environment, eventually, processes_of

try:
    archive_path()
except FlightsNotInstalled as error:
    pytest.skip(str(error), allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
StartDemo = Callable[..., Process]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[StartDemo]:
    started: list[Process] = []

    def start(*options: str) -> Process:
        (tmp_path / "tmp").mkdir()
        environment = clean_environment(
            PYTHONPATH=str(Path.cwd()), TMPDIR=str(tmp_path / "tmp"),
            # What a developer may have set must not reach the demo.
            TASKAPP_BROKER_URL="redis://127.0.0.1:1/0", TASKAPP_KEY_PREFIX="mine:",
        )  # fmt: skip
        argv = [sys.executable, "-m", "taskapp", "demo", "--output", str(tmp_path / "out"), *options]
        started.append(Process(argv, tmp_path / "demo.log", environment, tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.close()


def test_the_main_job_ends_well_and_leaves_nothing_running(demo: StartDemo, tmp_path: Path) -> None:
    process = demo()
    family: set[psutil.Process] = set()

    def ended() -> bool:
        if process.returncode is None:
            family.update(psutil.Process(process.pid).children(recursive=True))
        return process.returncode is not None

    eventually(ended, within_seconds=150)

    output = process.output()
    assert process.returncode == 0, output
    assert "✘" not in output
    assert "http://" not in output.partition("Checks")[2]
    assert "`taskapp demo --keep` leaves them running" in output
    assert "taskapp redis stop" not in output
    page = (tmp_path / "out" / "metrics.prom").read_bytes()
    assert b'taskapp_tasks_completed_total{queue="critical",type="taskapp.canary"}' in page
    if shutil.which("promtool"):
        accepted = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
        assert (accepted.returncode, accepted.stderr) == (0, b"")
    for seen in (
        "added while beat was running ran on time",
        "no ticks while it was paused",
        "ticks continued after resume",
        "it used the new arguments",
    ):
        assert f"{seen} " in output
    assert re.search(r"flights and departures in the report\s+│\s+336,776 and 328,521", output)
    assert (tmp_path / "out" / "report.html").stat().st_size > 50_000
    assert len(list((tmp_path / "out" / "mail").glob("*.eml"))) == 1
    assert len(family) >= 10
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert processes_of(tmp_path / "tmp") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_no_process_and_no_temporary_file(
    demo: StartDemo, tmp_path: Path, number: signal.Signals
) -> None:
    process = demo("--keep")
    eventually(lambda: "processes ready" in process.output(), within_seconds=60)
    family = psutil.Process(process.pid).children(recursive=True)

    os.kill(process.pid, number)

    process.wait(40)
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert processes_of(tmp_path / "tmp") == []
    assert list((tmp_path / "tmp").iterdir()) == []
