"""Slots of a node, of one kind or several, and how many messages to claim ahead of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

AHEAD_SECONDS = 0.02
"""Amount of work that may be claimed beyond the free slots, estimated from the duration of tasks."""
MOST_AHEAD = 64
STUCK_SECONDS = 0.2
"""How long a message claimed ahead may wait before it is returned, because tasks run longer than estimated."""
ANY = ""
"""The only kind of slot of a node with a single kind."""


class PrefetchEstimator:
    """Estimates the duration of tasks, and from it how many messages to claim ahead."""

    def __init__(self) -> None:
        self._mean_seconds = 0.1

    def ran(self, seconds: float) -> None:
        """Record the duration of a task. Longer ones raise the estimate quickly, shorter ones lower it slowly."""
        self._mean_seconds += (max(seconds, 1e-4) - self._mean_seconds) * (0.5 if seconds > self._mean_seconds else 0.1)

    def was_too_fast(self) -> None:
        """Record that tasks run longer than estimated."""
        self._mean_seconds = max(self._mean_seconds, AHEAD_SECONDS)

    def ahead(self) -> int:
        """Return how many messages may be claimed beyond the free slots."""
        return min(MOST_AHEAD, int(AHEAD_SECONDS / self._mean_seconds))


class Slots(Protocol):
    """The slots of a node."""

    measured: PrefetchEstimator | None
    """Gets the time each message was held; ``None``: the slots measure it themselves."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds of slots."""

    def kind(self, task: str) -> str:
        """Return the kind of slot for tasks of this type; any kind for a type that the node lacks."""

    def free(self, kind: str) -> int:
        """Return how many more messages may be handed out now."""

    def wanted(self, kind: str, held: int) -> int:
        """Return how many messages to claim now; ``held`` are claimed and not handed out yet."""


class SingleKindSlots:
    """Slots of one kind."""

    kinds = (ANY,)

    def __init__(self, free: Callable[[], int]) -> None:
        self._free = free
        self.measured: PrefetchEstimator | None = PrefetchEstimator()

    def kind(self, task: str) -> str:  # noqa: ARG002 - all are alike
        """Return the one kind."""
        return ANY

    def free(self, kind: str) -> int:  # noqa: ARG002 - the same
        """Return how many more messages may be handed out now."""
        return self._free()

    def wanted(self, kind: str, held: int) -> int:  # noqa: ARG002 - the same
        """Return how many messages to claim: the free slots and a few ahead; none while half of those are held."""
        ahead = self.measured.ahead() if self.measured is not None else 0
        free = self._free()
        if (free <= 0 and not ahead) or held * 2 > ahead:
            return 0
        return max(free + ahead - held, 0)
