"""Figures by measurement, in a JSON file: a new measurement replaces the earlier one."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.frameworks import BY_KEY

PATH = Path(__file__).parent / "results.json"


@dataclass
class Run:
    """One run of the driver: when and where its figures were measured."""

    started: str
    """Start of the run, ISO 8601, UTC; identifies it."""
    machine: str
    python: str
    stores: str
    size: str
    rounds: int
    load: float
    """Load of the machine at the start, from other programs."""
    versions: dict[str, str] = field(default_factory=dict)
    """By framework: the versions of it and of its client library."""


@dataclass
class Record:
    """Figures of one variant in one run, by round."""

    run: str
    variant: str
    workload: str
    parameters: dict[str, Any]
    figures: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Why rounds have no figures."""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.variant, self.workload, json.dumps(self.parameters, sort_keys=True)

    def median(self, name: str) -> float | None:
        """Return the median over the rounds, ``None`` if nothing was measured."""
        values = self.figures.get(name)
        return statistics.median(values) if values else None

    def spread(self, name: str) -> tuple[float, float]:
        """Return the minimum and the maximum."""
        return min(self.figures[name]), max(self.figures[name])

    def add(self, figures: Mapping[str, float]) -> None:
        """Add the figures of one round."""
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)


@dataclass
class Records:
    """All stored figures."""

    runs: dict[str, Run] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Records:
        """Read ``path``, without variants that no longer exist; empty if there is no such file."""
        if not path.exists():
            return cls()
        kept = json.loads(path.read_text())
        runs = {run["started"]: Run(**run) for run in kept["runs"]}
        return cls(runs, [Record(**record) for record in kept["records"] if record["variant"] in BY_KEY])

    def merge(self, run: Run, records: Iterable[Record]) -> None:
        """Replace older records of the same measurements with ``records``."""
        new = {record.key: record for record in records}
        self.records = [*(record for record in self.records if record.key not in new), *new.values()]
        used = {record.run for record in self.records}
        self.runs = {name: each for name, each in {**self.runs, run.started: run}.items() if name in used}

    def save(self, path: Path) -> None:
        """Write everything, one record per line, so that diffs stay small."""
        runs = [json.dumps(asdict(run)) for run in self.runs.values()]
        records = [json.dumps(asdict(_rounded(record))) for record in sorted(self.records, key=lambda each: each.key)]
        text = '{"runs": [\n' + ",\n".join(runs) + '\n], "records": [\n' + ",\n".join(records) + "\n]}\n"
        path.write_text(text)

    def of(self, workload: str, **parameters: Any) -> list[Record]:
        """Return the records of a workload whose parameters include these, oldest runs first."""
        return sorted(
            (
                record
                for record in self.records
                if record.workload == workload and record.parameters.items() >= parameters.items()
            ),
            key=lambda record: record.run,
        )

    def newest(self, workload: str, **parameters: Any) -> list[Record]:
        """Return the latest record of each variant, whatever the number of tasks."""
        return list({record.variant: record for record in self.of(workload, **parameters)}.values())


def _rounded(record: Record) -> Record:
    figures = {name: [float(f"{value:.5g}") for value in values] for name, values in record.figures.items()}
    return Record(**{**asdict(record), "figures": figures})


def machine() -> str:
    """Return a description of the machine: ``2 cores, 24 GiB, Linux 6.1 x86_64, Some CPU``."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = [line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")]
    parts = [f"{os.cpu_count()} cores", f"{gib:.0f} GiB", f"{platform.system()} {platform.machine()}", *names[:1]]
    return ", ".join(parts)


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().split("\n") if path.exists() else []
