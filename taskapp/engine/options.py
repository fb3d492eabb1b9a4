"""What a deployment can choose about delivery, and what a node says of itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskapp.engine.slots import Slots

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How the engine delivers. One for all nodes of a deployment."""

    prefix: str = ""
    """Put before every key."""
    lease_seconds: float = 15.0
    """How long a node that fell silent keeps its messages; it beats three times as often."""
    starvation_guard: int = 16
    """One claim in so many looks from the lowest queue and priority up; 0: never."""
    crash_limit: int = 3
    """After so many crashes of its own a message is buried."""
    dead_letters_limit: int = 10_000
    """How many dead letters are kept, a queue and reason; the oldest go first."""
    parked_seconds: float = 3_600.0
    """How long a message waits for a node that has its task type."""

    @property
    def lease_ms(self) -> int:
        """The lease in the engine's unit."""
        return int(self.lease_seconds * 1_000)


class Buried(NamedTuple):
    """A message the engine buried by itself."""

    id: str
    task: str
    reason: str
    queue: str
    number: int
    """Of its dead letter in ``queue``."""


def nothing(_: Iterable[Buried]) -> None:
    """Do nothing."""


def always() -> bool:
    """Say yes."""
    return True


def no_types() -> Mapping[str, str]:
    """Return the types of a node that takes whatever comes."""
    return {}


@dataclass
class NodeProfile:
    """What a node can do. Set by the worker before it consumes; a plain consumer takes anything."""

    name: str = ""
    """Shown where a node is named."""
    types: Callable[[], Mapping[str, str]] = field(default=no_types)
    """The task types it has, each with the kind of slot it takes; none: any."""
    slots: Slots | None = None
    """Its slots, if they are of several kinds."""
    isolates: bool = True
    """Whether a task that kills its process kills nothing else (child processes)."""
    is_in_task: Callable[[], bool] = field(default=always)
    """Whether the loop that drives the node is in a task's code, so that it may stand still; called on any thread."""
    has_room: Callable[[], bool] = field(default=always)
    """Whether it may claim more: what has run and waits for its result to be stored is bounded."""
    about: Callable[[], Mapping[str, Any]] = field(default=no_types)
    """What it says of itself with each heartbeat, as JSON: see ``NodeSnapshot``; called on any thread."""
    on_buried: Callable[[Iterable[Buried]], None] = field(default=nothing)
    """Told of messages the engine buried by itself; called on any thread."""

    def about_as_json(self) -> str:
        """Return what it says of itself; empty: nothing. Never raises: a lease depends on who calls this."""
        try:
            about = self.about()
            return json.dumps(about) if about else ""
        except Exception as error:  # noqa: BLE001 - of a pool that is just being made, or is gone
            logger.debug("this node has nothing to say of itself: %s", error)
            return ""
