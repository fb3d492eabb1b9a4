"""What was done to nodes and their server, and which second runs that explains.

A run may begin again only if the process it ran in was killed, or its node was out of touch for longer than the
lease, before its end could be settled. What happens to the server explains nothing by itself: it only puts off the
moment at which an end is settled.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.faults.runs import Run

SETTLING_SECONDS = 3.5
"""How long after its end a run may still be unsettled: a forgotten connection is noticed and reopened."""


@dataclass
class Disturbance:
    """A time in which a node, or one process of it, lost its right to what it held. Times by CLOCK_MONOTONIC."""

    life: str
    begun_at: float
    ended_at: float
    pid: int | None = None
    """The one process it was done to; ``None``: the whole node."""

    def hits(self, run: Run, settled_at: float) -> bool:
        """Return whether ``run`` was under way, or ended and not settled yet."""
        same = run.worker == self.life and self.pid in (None, run.pid)
        return same and self.begun_at <= settled_at and run.started_at <= self.ended_at


@dataclass
class Disturbances:
    """All that was done in one history."""

    of_nodes: list[Disturbance] = field(default_factory=list)
    out_of_touch: list[Disturbance] = field(default_factory=list)
    """When a node could not reach the server, for whatever length of time."""
    of_server: list[tuple[float, float]] = field(default_factory=list)
    """When the server did not answer, or refused writes."""

    def explain(self, run: Run) -> bool:
        """Return whether the task of ``run`` may begin again."""
        settled_at = self._settled_at(run)
        return any(one.hits(run, settled_at) for one in self.of_nodes)

    def explain_late(self, run: Run) -> bool:
        """Return whether ``run`` may begin though others have its task: its node was away with it in its hands."""
        return any(
            one.life == run.worker and one.pid is None and one.begun_at <= run.started_at <= one.ended_at
            for one in self.of_nodes
        )

    def _settled_at(self, run: Run) -> float:
        """Return by when the end of ``run`` must have reached the server, if nothing else befell its node."""
        if run.ended_at is None:
            return float("inf")
        away = self.of_server + [(one.begun_at, one.ended_at) for one in self.out_of_touch if one.life == run.worker]
        settled_at = run.ended_at + SETTLING_SECONDS
        for begun_at, ended_at in sorted(away):
            if begun_at <= settled_at and run.ended_at <= ended_at:
                settled_at = max(settled_at, ended_at + SETTLING_SECONDS)
        return settled_at
