"""What came of one row, and how it is judged."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """The figures of one row. Times in seconds; ``None`` where a row measures no recovery."""

    sent: int = 0
    acknowledged: int = 0
    ran: int = 0
    ran_twice: int = 0
    lost: int = 0
    recovery_p50_seconds: float | None = None
    recovery_max_seconds: float | None = None
    passed: bool = False
    skipped: bool = False
    notes: tuple[str, ...] = ()


def skipped(reason: str) -> Outcome:
    """Return the outcome of a row this machine cannot play."""
    return Outcome(passed=True, skipped=True, notes=(f"skipped: {reason}",))


@dataclass
class Judge:
    """Collects what a row requires and what was missed."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def require(self, holds: bool, otherwise: str) -> None:
        """Fail the row with the sentence ``otherwise`` unless ``holds``."""
        if not holds:
            self.problems.append(otherwise)

    def require_none(self, offenders: Collection[str], what: str) -> None:
        """Fail the row if there are ``offenders``, naming the first few."""
        self.require(not offenders, f"{len(offenders)} {what}: {', '.join(sorted(offenders)[:3])}")

    def remark(self, sentence: str) -> None:
        """Add ``sentence`` to the notes; it decides nothing."""
        self.remarks.append(sentence)

    @property
    def notes(self) -> tuple[str, ...]:
        """The problems, then the remarks."""
        return (*self.problems, *self.remarks)


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` of ``values`` do not exceed; ``None`` of none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def play_for(seconds: float) -> None:
    """Let a fault last ``seconds``: the time is part of the fault, not a wait for luck."""
    time.sleep(max(0.0, seconds))
