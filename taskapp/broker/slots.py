"""What a node can run at once: slots of one kind or several, and what is claimed ahead of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from taskapp.broker.claims import Claimed

AHEAD_SECONDS = 0.02
"""How much work may be claimed beyond the free slots, measured by how long tasks take."""
MOST_AHEAD = 64
STUCK_SECONDS = 0.2
"""A message claimed ahead that has waited so long is given back: what runs is longer than thought."""
ANY = ""
"""The kind of all slots of a node that knows only one."""


class Slots(Protocol):
    """The slots of a node."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds there are."""

    def kind(self, task: str) -> str:
        """Return the kind of slot tasks of this type take; any for a type the node lacks."""

    def free(self, kind: str) -> int:
        """Return how many more messages may be handed out now."""

    def claims_ahead(self, kind: str) -> bool:
        """Say whether more may be claimed than there are free slots, while tasks are short."""


class AllAlike:
    """Slots of one kind."""

    kinds = (ANY,)

    def __init__(self, free: Callable[[], int]) -> None:
        self._free = free

    def kind(self, task: str) -> str:  # noqa: ARG002 - all are alike
        """Return the one kind."""
        return ANY

    def free(self, kind: str) -> int:  # noqa: ARG002 - the same
        """Return how many more messages may be handed out now."""
        return self._free()

    def claims_ahead(self, kind: str) -> bool:  # noqa: ARG002 - the same
        """Say yes."""
        return True


class Ahead:
    """Messages claimed for one kind of slot and not handed out yet. Used by one thread; others may look."""

    def __init__(self, *, is_allowed: bool) -> None:
        self._is_allowed = is_allowed
        self.messages: deque[Claimed] = deque()
        self.since = 0.0
        """When the first of them came to be the first."""
        self._mean_seconds = 0.1

    def wanted(self, free: int) -> int:
        """Return how many messages to claim for ``free`` slots; 0 while enough are here."""
        most = min(MOST_AHEAD, int(AHEAD_SECONDS / self._mean_seconds)) if self._is_allowed else 0
        if free <= 0 and not most:
            return 0
        want = free + most - len(self.messages)
        return want if len(self.messages) * 2 <= most else 0

    def add(self, message: Claimed) -> None:
        """Keep ``message`` behind the others."""
        if not self.messages:
            self.since = monotonic()
        self.messages.append(message)

    def is_stuck(self) -> bool:
        """Say whether they have waited longer than they should."""
        return bool(self.messages) and monotonic() > self.since + STUCK_SECONDS

    def was_too_much(self) -> None:
        """Take note that what runs is longer than thought."""
        self._mean_seconds = max(self._mean_seconds, AHEAD_SECONDS)

    def ran(self, seconds: float) -> None:
        """Take note of how long a message was held from handing out to its end."""
        self._mean_seconds += (max(seconds, 1e-4) - self._mean_seconds) * (0.5 if seconds > self._mean_seconds else 0.1)
