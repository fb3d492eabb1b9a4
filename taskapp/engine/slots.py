"""What a node can run at once: slots of one kind or several, and how much is claimed ahead of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

AHEAD_SECONDS = 0.02
"""How much work may be claimed beyond the free slots, measured by how long tasks take."""
MOST_AHEAD = 64
STUCK_SECONDS = 0.2
"""A message claimed ahead that has waited so long is given back: what runs is longer than thought."""
ANY = ""
"""The kind of all slots of a node that knows only one."""


class PrefetchEstimator:
    """How long tasks take, and how many of them may therefore be claimed ahead."""

    def __init__(self) -> None:
        self._mean_seconds = 0.1

    def ran(self, seconds: float) -> None:
        """Take note of how long a task took. A long one counts at once, short ones have to prove themselves."""
        self._mean_seconds += (max(seconds, 1e-4) - self._mean_seconds) * (0.5 if seconds > self._mean_seconds else 0.1)

    def was_too_fast(self) -> None:
        """Take note that what runs is longer than thought."""
        self._mean_seconds = max(self._mean_seconds, AHEAD_SECONDS)

    def ahead(self) -> int:
        """Return how many messages may be claimed beyond the free slots."""
        return min(MOST_AHEAD, int(AHEAD_SECONDS / self._mean_seconds))


class Slots(Protocol):
    """The slots of a node."""

    measured: PrefetchEstimator | None
    """Told how long each message was held; ``None``: the slots measure for themselves."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds there are."""

    def kind(self, task: str) -> str:
        """Return the kind of slot tasks of this type take; any for a type the node lacks."""

    def free(self, kind: str) -> int:
        """Return how many more messages may be handed out now."""

    def wanted(self, kind: str, held: int) -> int:
        """Return how many messages to claim now, when ``held`` are claimed and not handed out yet."""


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
        """Return how many messages to claim: what is free and a little ahead; none while half of that is held."""
        ahead = self.measured.ahead() if self.measured is not None else 0
        free = self._free()
        if (free <= 0 and not ahead) or held * 2 > ahead:
            return 0
        return max(free + ahead - held, 0)
