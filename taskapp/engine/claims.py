"""What a claim brings."""

from __future__ import annotations

from typing import NamedTuple

from taskapp.engine.envelope import Envelope


class Claimed(NamedTuple):
    """A message this node holds under its lease."""

    tag: str
    queue: str
    priority: int
    envelope: Envelope
    lease: str
    """The key of the lease hash; its field ``tag`` exists as long as the claim holds."""


class Claim(NamedTuple):
    """The answer to a claim."""

    messages: list[Claimed]
    next_due_seconds: float | None
    """In how many seconds the next delayed message of these queues is due."""
    set_aside: int
    """How many keys of a wrong type were renamed."""
    passed_over: bool
    """Whether messages were left for others: this node lacks their type, or a free slot of their kind."""
