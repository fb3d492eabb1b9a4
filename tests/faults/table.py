"""Shows what came of the rows: a line each for people, a list of objects for machines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.outcome import Outcome

HEADER = (
    f"{'':>2}  {'fault':<42} {'sent':>7} {'acked':>7} {'ran':>7} {'twice':>6} {'lost':>5} "
    f"{'recovery p50':>13} {'max':>7} {'took':>6}  outcome"
)


@dataclass(frozen=True)
class Played:
    """One row played once."""

    row: int
    fault: str
    engine: str
    size: str
    seed: int
    took_seconds: float
    outcome: Outcome


def line(played: Played) -> str:
    """Return the figures of one play, and below them what failed or is worth saying."""
    outcome = played.outcome
    verdict = "skipped" if outcome.skipped else "pass" if outcome.passed else "FAIL"
    figures = (
        f"{played.row:>2}  {played.fault:<42} {outcome.sent:>7} {outcome.acknowledged:>7} {outcome.ran:>7} "
        f"{outcome.ran_twice:>6} {outcome.lost:>5} {_seconds(outcome.recovery_p50_seconds):>13} "
        f"{_seconds(outcome.recovery_max_seconds):>7} {played.took_seconds:>4.0f} s  {verdict}"
    )
    return "\n".join([figures, *(f"      {note}" for note in outcome.notes)])


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def write_json(plays: Iterable[Played], path: Path) -> None:
    """Write all plays to ``path``, one object each."""
    path.write_text(json.dumps([dataclasses.asdict(played) for played in plays], indent=2) + "\n")
