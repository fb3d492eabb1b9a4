"""Circuits of task types that are open or half-open, see ``circuits.lua``."""

from __future__ import annotations

from typing import NamedTuple

from taskapp.engine.limits import Concurrency, Rate
from taskapp.redis.link import Link

ANY_NUMBER = 1_000_000_000
OF_CIRCUITS = "circuit:"
"""With this prefix, the name of a task type is that of the limit which its circuit breaker is."""


class Circuit(NamedTuple):
    """A circuit that is not closed."""

    task: str
    since: float
    """When it opened first, Unix seconds by the clock of Redis."""
    left_seconds: float
    """How long it stays open; 0: half-open, one run at a time is tried."""
    kind: str
    """Class of the errors."""
    times: int
    """How often it has opened since."""

    @property
    def state(self) -> str:
        """``open`` or ``half-open``."""
        return "open" if self.left_seconds else "half-open"


class Circuits:
    """Reads and closes circuits; errors are those of ``Link``."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link, self._prefix = link, prefix

    def read(self) -> list[Circuit]:
        """Return the circuits that are not closed, at most 1,000, the oldest first."""
        flat = self._link.run("circuit", self._prefix, 0, "")
        texts = [part.decode(errors="replace") for part in flat]
        parts = zip(*(texts[at::5] for at in range(5)), strict=True)
        return [
            Circuit(task, float(since) / 1_000, int(left) / 1_000, kind, int(times))
            for task, since, left, kind, times in parts
        ]

    def close(self, task: str) -> bool:
        """Close the circuit of ``task``; return whether it was open or half-open."""
        return bool(self._link.run("circuit", self._prefix, 0, task))


def gates_of(task: str) -> tuple[Rate, Concurrency]:
    """Return the limits in messages of a type with a circuit breaker, which let any number run while it is closed."""
    name = OF_CIRCUITS + task
    return Rate(name, "", 1, 1, 1, 0), Concurrency(name, "", ANY_NUMBER)
