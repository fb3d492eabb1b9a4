"""Delivery options of a deployment, and the profile of a node."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskapp.engine.slots import Slots

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How the engine delivers; the same for all nodes of a deployment."""

    prefix: str = ""
    """Prefix of every key."""
    lease_seconds: float = 15.0
    """How long a silent node keeps its messages; it beats three times in that period."""
    starvation_guard: int = 16
    """Every Nth claim starts at the lowest queue and priority; 0: none does."""
    crash_limit: int = 3
    """Number of crashes of its own after which a message is buried."""
    dead_letters_limit: int = 10_000
    """Maximum number of dead letters per queue and reason; the oldest are deleted first."""
    parked_seconds: float = 3_600.0
    """How long a message waits for a node that has its task type."""
    queue_limits: Mapping[str, int] = field(default_factory=dict)
    """How many messages may wait in a queue; queues without a limit are missing."""
    waits_for_room: bool = False
    """Whether a push to a full queue waits until its deadline."""

    @property
    def lease_ms(self) -> int:
        """The lease in milliseconds, the engine's unit."""
        return int(self.lease_seconds * 1_000)


class Buried(NamedTuple):
    """A message that the engine itself buried."""

    id: str
    task: str
    reason: str
    queue: str
    number: int
    """Number of its dead letter in ``queue``."""


def nothing(_: Iterable[Any]) -> None:
    """Ignore it."""


def no_numbers() -> Mapping[str, Mapping[str, float]]:
    """Return no limits."""
    return {}


def always() -> bool:
    """Return ``True``."""
    return True


def no_types() -> Mapping[str, str]:
    """Return the task types of a node that accepts any."""
    return {}


def ready() -> None:
    """Have nothing to do first."""


@dataclass
class NodeProfile:
    """Capabilities of a node. The worker sets them before it consumes; a plain consumer accepts anything."""

    name: str = ""
    """Name of the node for display."""
    types: Callable[[], Mapping[str, str]] = field(default=no_types)
    """Returns its task types, each with the kind of slot it needs; empty: any type."""
    slots: Slots | None = None
    """Its slots, if there are several kinds."""
    isolates: bool = True
    """Whether a task that kills its process kills nothing else (child processes)."""
    is_in_task: Callable[[], bool] = field(default=always)
    """Returns whether the node's loop runs a task's code, which may block it; called on any thread."""
    has_room: Callable[[], bool] = field(default=always)
    """Returns whether it may claim more: the number of finished runs whose results are not stored yet is bounded."""
    about: Callable[[], Mapping[str, Any]] = field(default=no_types)
    """Returns the description it sends with each heartbeat, see ``NodeSnapshot``; called on any thread."""
    before_settling: Callable[[], None] = field(default=ready)
    """Called before ends of claims are sent; on any thread, and raises nothing."""
    on_buried: Callable[[Iterable[Buried]], None] = field(default=nothing)
    """Called, on any thread, with messages that the engine itself buried."""

    on_revoked: Callable[[Sequence[str]], None] = field(default=nothing)
    """Called with ids of running tasks, on any node, that must end to make room for the next one of their key."""
    limits: Callable[[], Mapping[str, Mapping[str, float]]] = field(default=no_numbers)
    """Returns the numbers of its limits by name, see ``limit_numbers.NUMBERS``; sent to the server at each start."""

    def about_as_json(self) -> str:
        """Return its description as JSON; empty: none. Never raises, because the lease depends on its caller."""
        try:
            about = self.about()
            return json.dumps(about) if about else ""
        except Exception as error:  # noqa: BLE001 - raised by a pool that is starting or gone
            logger.debug("could not describe this node: %s", error)
            return ""
