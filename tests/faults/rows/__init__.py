"""One fault a module: ``FAULT`` says what it is, ``play`` does it; ``PLAYS_STOCK`` where stock Celery can play too."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome


@dataclass(frozen=True)
class Row:
    """One row of the matrix."""

    number: int
    fault: str
    play: Callable[[Bench], Outcome]
    plays_stock: bool


def load_rows() -> dict[int, Row]:
    """Return all rows, by number."""
    rows = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{module_info.name}")
        number = int(module_info.name.split("_")[1])
        rows[number] = Row(number, module.FAULT, module.play, getattr(module, "PLAYS_STOCK", False))
    return dict(sorted(rows.items()))
