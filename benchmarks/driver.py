"""Measures the selected workloads round by round; in each round one framework after the other."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import workloads
from benchmarks.bench import Bench, folder
from benchmarks.environments import python_of, versions
from benchmarks.frameworks import Variant
from benchmarks.processes import BrokenOff
from benchmarks.records import Record, Run, machine
from benchmarks.servers import STORES, Store


class Measurement(NamedTuple):
    """One measurement of one variant."""

    workload: str
    parameters: dict[str, Any]
    variant: Variant

    def __str__(self) -> str:
        told = ", ".join(f"{name} {value}" for name, value in self.parameters.items())
        return f"{self.workload:9} {self.variant.key:20} {told}"


def choose(names: Sequence[str], variants: Sequence[Variant], size: str) -> list[Measurement]:
    """Return the measurements, ordered so that those to be compared follow one another."""
    return [
        Measurement(name, dict(parameters), variant)
        for name in names
        for parameters in workloads.load(name).sizes[size]
        for variant in variants
        if workloads.load(name).takes_part(variant, parameters) and (name == "schedules" or not variant.only_beat)
    ]


class Driver:
    """One run: its measurements and their figures so far."""

    def __init__(self, measurements: Sequence[Measurement], size: str, rounds: int) -> None:
        self._measurements = measurements
        self.run = Run(
            started=datetime.now(UTC).isoformat(timespec="seconds"), machine=machine(), python=sys.version.split()[0],
            stores="", size=size, rounds=rounds, load=round(os.getloadavg()[0], 1),
        )  # fmt: skip
        self.records: dict[tuple[str, str, str], Record] = {}

    def measure(self) -> None:
        """Measure everything once per round; note what cannot be measured, and continue with the rest."""
        for framework in dict.fromkeys(each.variant.framework for each in self._measurements):
            python_of(framework)
            self.run.versions[framework] = versions(framework)
        with ExitStack() as stack, folder() as directory:
            stores = Stores(stack, directory)
            for number in range(self.run.rounds):
                for measurement in _turned(self._measurements, number):
                    store = stores.of(measurement.variant)
                    self.run.stores = stores.versions()
                    self._measure(measurement, store, number)

    def _measure(self, measurement: Measurement, store: Store, number: int) -> None:
        name, parameters, variant = measurement
        fresh = Record(self.run.started, variant.key, name, parameters)
        record = self.records.setdefault(fresh.key, fresh)
        began = time.monotonic()
        with folder() as directory:
            try:
                figures = workloads.load(name).measure(Bench(variant, store, directory), **parameters)
            except BrokenOff as error:
                record.failures.append(str(error))
                told = f"failed: {error}"
            else:
                record.add(figures)
                told = "  ".join(f"{each} {value:,.5g}" for each, value in figures.items())
        print(f"{number + 1} {measurement}: {told} ({time.monotonic() - began:.0f} s)", flush=True)


class Stores:
    """The servers of a run, each started at first use."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack, self._directory = stack, directory
        self._running: dict[str, Store] = {}

    def of(self, variant: Variant) -> Store:
        """Return the store of ``variant``."""
        if variant.store not in self._running:
            store = STORES[variant.store](self._directory)
            self._stack.callback(store.close)
            store.await_ready()
            self._running[variant.store] = store
        return self._running[variant.store]

    def versions(self) -> str:
        """Return their versions: ``PostgreSQL 15.4, Redis 7.0.15``."""
        return ", ".join(sorted(store.version for store in self._running.values()))


def _turned(measurements: Sequence[Measurement], number: int) -> Iterator[Measurement]:
    """Start each round with another framework, so that none always has the same neighbour or the coldest caches."""
    for _what, group in groupby(measurements, key=lambda each: (each.workload, each.parameters)):
        members = list(group)
        first = number * 7 % len(members)
        yield from members[first:] + members[:first]
