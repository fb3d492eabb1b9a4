"""What people are shown of limits: their numbers, where these come from, and what they block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from taskapp.client.limits.rates import MOST, PERIODS_MS, PerPeriod
from taskapp.engine.circuits import OF_CIRCUITS
from taskapp.engine.limit_numbers import OF_RATES, OF_SLOTS, LimitNumbers
from taskapp.engine.snapshot import LimitRef, QueueSnapshot

KINDS = {"rate": "rate", "slots": "at once", "unique": "unique"}
UNITS = {period: unit for unit, period in PERIODS_MS.items()}
UNLIMITED = "none"
NUMBERS_OF = {"rate": OF_RATES, "slots": OF_SLOTS}


class LimitRow(NamedTuple):
    """One limit of tasks."""

    name: str
    kind: str
    """``rate``, ``slots`` or ``unique``."""
    code: Mapping[str, float]
    """Numbers that its code declares."""
    set: Mapping[str, float]
    """Numbers that somebody has set; these win, one by one."""
    blocked: int
    """Number of tasks that it does not let run now."""

    @property
    def kind_text(self) -> str:
        """The kind as people know it: ``rate``, ``at once``, ``unique`` or ``circuit``."""
        return "circuit" if self.name.startswith(OF_CIRCUITS) else KINDS[self.kind]

    @property
    def origin(self) -> str:
        """Where the numbers in force come from: ``set`` or ``code``."""
        return "set" if self.set else "code"


def limit_rows(known: Mapping[str, LimitNumbers], queues: Iterable[QueueSnapshot]) -> list[LimitRow]:
    """Return every limit of tasks by name: those with numbers, and others that block tasks now."""
    blocked: dict[LimitRef, int] = {}
    for queue in queues:
        for ref, number in queue.blocked_by.items():
            blocked[ref] = blocked.get(ref, 0) + number
    refs = {LimitRef(kind, name) for name, numbers in known.items() for kind in NUMBERS_OF if _has(numbers, kind)}
    return [_row(ref, known.get(ref.name), blocked.get(ref, 0)) for ref in sorted(refs | blocked.keys(), key=_order)]


def _order(ref: LimitRef) -> tuple[str, str]:
    return ref.name, ref.kind


def _has(numbers: LimitNumbers, kind: str) -> bool:
    return any(name in each for name in NUMBERS_OF[kind] for each in (numbers.declared, numbers.set))


def _row(ref: LimitRef, numbers: LimitNumbers | None, blocked: int) -> LimitRow:
    names = NUMBERS_OF.get(ref.kind, ())
    of = numbers or LimitNumbers(ref.name, {}, {})
    code, by_hand = ({name: each[name] for name in names if name in each} for each in (of.declared, of.set))
    return LimitRow(ref.name, ref.kind, code, by_hand, blocked)


def numbers_text(numbers: Mapping[str, float]) -> str:
    """Return numbers of one limit as people write them: ``100/m, burst 5``, or ``20``; empty if there are none."""
    if "most" in numbers:
        return UNLIMITED if numbers["most"] >= MOST else f"{numbers['most']:,.10g}"
    burst = numbers.get("burst")
    if "limit" not in numbers or "period_ms" not in numbers:
        return "" if burst is None else f"burst {burst:,.10g}"
    rate = PerPeriod(numbers["limit"], int(numbers["period_ms"]))
    if rate.limit >= MOST:
        return UNLIMITED
    unit = UNITS.get(rate.period_ms, f"{rate.period_ms / 1_000:g} s")
    shown = f"{rate.limit:,.10g}/{unit}"
    return shown if burst in (None, rate.usual_burst) else f"{shown}, burst {burst:,.10g}"
