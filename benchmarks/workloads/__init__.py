"""The workloads, one file each: a function from a bench to figures by name, and the parameters of each size."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.frameworks import Variant

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Workload:
    """One workload to measure."""

    measure: Callable[..., dict[str, float]]
    """Called with a ``Bench`` and the parameters."""
    sizes: Mapping[str, Sequence[Parameters]]
    """``smoke``, ``quick`` and ``full`` to its parameters."""
    takes_part: Callable[[Variant, Parameters], bool]


NAMES = ("submit", "drain", "latency", "in_flight", "delayed", "growth", "schedules")


def load(name: str) -> Workload:
    """Return the workload ``name``."""
    module = importlib.import_module(f"benchmarks.workloads.{name}")
    return Workload(module.measure, module.SIZES, module.takes_part)
