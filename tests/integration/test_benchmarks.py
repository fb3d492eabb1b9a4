from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import clean_environment, eventually, processes_of

ROOT = Path(__file__).parents[2]


def start(tmp_path: Path, *options: str) -> subprocess.Popen[bytes]:
    places = ["--json", str(tmp_path / "results.json"), "--docs", str(tmp_path / "docs")]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--size", "smoke", "--only", "taskapp-async", *places, *options],
        cwd=ROOT, env=clean_environment(TMPDIR=str(tmp_path)), stdout=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_the_benchmark_measures_taskapp_and_writes_its_document(tmp_path):
    driver = start(tmp_path, "--workloads", "submit,drain", "--rounds", "1")
    output, _ = driver.communicate(timeout=60)

    assert driver.returncode == 0, output
    records = json.loads((tmp_path / "results.json").read_text())["records"]
    drained = next(record for record in records if record["workload"] == "drain")
    assert not any(record["failures"] for record in records), records
    assert drained["figures"]["missing"] == [0.0]
    assert 10 < drained["figures"]["worker_us"][0] < 5_000
    assert "**taskapp, `async def`**" in (tmp_path / "docs" / "benchmarks.md").read_text()
    assert not processes_of(tmp_path)


@pytest.mark.slow
def test_a_benchmark_that_is_ended_leaves_nothing_running_and_keeps_its_figures(tmp_path):
    driver = start(tmp_path, "--workloads", "drain,in_flight", "--rounds", "100")
    # The directory of the first measurement is gone: its figures are there.
    assert driver.stdout.readline().startswith(b"1 drain")
    eventually(lambda: any("benchmarks.client" in process.cmdline() for process in processes_of(tmp_path)))

    os.kill(driver.pid, signal.SIGTERM)

    assert driver.wait(30) == 143
    assert not processes_of(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["records"]
