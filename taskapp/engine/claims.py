"""The answer to a claim."""

from __future__ import annotations

from typing import NamedTuple

from taskapp.engine.envelope import Envelope


class Claimed(NamedTuple):
    """A message that this node holds under its lease."""

    tag: str
    queue: str
    priority: int
    envelope: Envelope
    lease: str
    """The key of the lease hash; its field ``tag`` exists while the claim holds."""


class Claim(NamedTuple):
    """The answer to a claim."""

    messages: list[Claimed]
    next_due_seconds: float | None
    """Seconds until the next delayed message of these queues is due; ``None``: none is delayed."""
    set_aside: int
    """Number of keys with a wrong type that were renamed."""
    passed_over: bool
    """Whether messages were left for others: this node lacks their task type, or a free slot of their kind."""
