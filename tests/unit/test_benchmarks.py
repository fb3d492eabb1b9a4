from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path

import pytest

from benchmarks import report, workloads
from benchmarks.__main__ import _variants
from benchmarks.client import Session
from benchmarks.driver import choose
from benchmarks.environments import PEERS
from benchmarks.frameworks import BY_KEY, VARIANTS
from benchmarks.records import Record, Records, Run
from benchmarks.tables import NONE, REFERENCE, TIMES, Column, table

WORKER = Column("worker", "worker_us")
RATIO = Column("ratio", "worker_us", 1, is_ratio=True)


def run(name: str) -> Run:
    return Run(name, "2 cores", "3.11.7", "Redis 7.0.15", "quick", 3, 0.1, {"saq": "saq 0.26.4"})


def drained(variant: str, *worker_us: float, run: str = "first", **parameters: int) -> Record:
    return Record(run, variant, "drain", parameters or {"count": 100}, {"worker_us": list(worker_us)})


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.key)
def test_every_framework_has_an_adaptor_and_pinned_versions(variant):
    assert Path(PEERS.parent, "adaptors", f"{variant.framework}.py").is_file()
    if variant.framework != "taskapp":
        lines = Path(PEERS, f"{variant.framework}.txt").read_text().splitlines()
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+|#.*", line) for line in lines)


@pytest.mark.parametrize("name", workloads.NAMES)
def test_every_workload_has_every_size_and_can_be_told(name):
    workload = workloads.load(name)
    assert set(workload.sizes) == {"smoke", "quick", "full"}
    for measurement in choose([name], VARIANTS, "full"):
        assert report._told(Record("", "", name, measurement.parameters))


def test_a_part_measured_anew_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "results.json"
    kept = Records()
    kept.merge(run("first"), [drained("saq", 900.0), drained("arq", 1_000.0)])
    kept.merge(run("second"), [drained("saq", 800.0, run="second"), drained("saq", 700.0, run="second", count=7)])
    kept.save(path)

    read = Records.load(path)

    assert sorted((each.variant, each.run, each.median("worker_us")) for each in read.of("drain", count=100)) == [
        ("arq", "first", 1_000.0),
        ("saq", "second", 800.0),
    ]
    assert sorted(read.runs) == ["first", "second"]


def test_a_run_of_which_nothing_is_left_is_forgotten():
    kept = Records()
    kept.merge(run("first"), [drained("saq", 900.0)])
    kept.merge(run("second"), [drained("saq", 800.0, run="second")])
    assert sorted(kept.runs) == ["second"]


def test_a_table_shows_medians_and_compares_only_within_a_run():
    records = [
        drained(REFERENCE, 50.0, 100.0, 400.0),
        drained("saq", 700.0, 900.0, 800.0),
        drained("arq", 1_000.0, run="second"),
    ]

    lines = table(records, [WORKER, RATIO], {"first": "a", "second": "b"}).splitlines()

    assert lines[2].startswith(f"| **taskapp, `async def`** | 100 | 1.0 {TIMES} | a |")
    assert lines[3] == f"| SAQ | 800 | 8.0 {TIMES} | a |"
    assert lines[4] == f"| arq | 1,000 | {NONE} | b |"


def test_a_table_says_what_broke_off_and_how_often():
    record = drained("saq", 800.0)
    record.failures.append("the client took longer than 150 s")
    assert "SAQ failed in 1 of 2 rounds: the client took longer than 150 s." in table(
        [record], [WORKER], {"first": "a"}
    )


def test_a_framework_that_is_not_there_is_refused():
    with pytest.raises(argparse.ArgumentTypeError, match=r"^unknown: sqa; known: floor, taskapp-async, "):
        _variants("saq,sqa")
    assert [variant.key for variant in _variants("taskiq,saq")] == ["saq", "taskiq-list", "taskiq-stream"]


class Forgetful:
    """A framework that loses one task and mixes up the results of two."""

    def __init__(self, *, mixes_up: bool = False) -> None:
        self.mixes_up = mixes_up

    async def submit(self, _name: str, number: int, _padding: str) -> int:
        return number

    async def is_done(self, handle: int) -> bool:
        return handle != 3

    async def result(self, handle: int) -> int:
        return {1: 2, 2: 1}.get(handle, handle) if self.mixes_up else handle


def test_a_task_without_a_result_is_counted_and_the_others_are_read():
    async def read_back() -> dict[str, float]:
        session = Session(Forgetful())
        await session.submit(5)
        missing = await session.missing(0.0)
        return missing | await session.read_back()

    assert asyncio.run(read_back())["missing"] == 1


def test_a_wrong_result_is_no_figure():
    async def read_back() -> None:
        session = Session(Forgetful(mixes_up=True))
        await session.submit(3)
        await session.read_back()

    with pytest.raises(ValueError, match="task 1 has the result 2"):
        asyncio.run(read_back())


def test_the_document_names_every_workload_of_nothing_too(tmp_path):
    report.write(Records(), tmp_path)
    assert (tmp_path / "benchmarks.md").read_text().count("Not measured.") == 10
    assert (tmp_path / "benchmarks.svg").read_text().startswith("<?xml")


def test_the_same_figures_give_the_same_bytes(tmp_path):
    records = Records()
    records.merge(run("first"), [drained(REFERENCE, 80.0), drained("saq", 800.0)])
    for name in ("one", "two"):
        report.write(records, tmp_path / name)
    for file in ("benchmarks.md", "benchmarks.svg"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_variants_are_told_apart():
    assert len(BY_KEY) == len(VARIANTS)
    assert len({variant.title for variant in VARIANTS}) == len(VARIANTS)
