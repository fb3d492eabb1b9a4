"""The state of one task, as a value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from taskapp.engine.task_notes import Progress


class State(StrEnum):
    """State of a task; it has exactly one at a time."""

    QUEUED = "queued"
    """It waits in its queue for a free slot."""
    DELAYED = "delayed"
    """It waits until it is due."""
    BLOCKED = "blocked"
    """A limit does not let it run yet."""
    PARKED = "parked"
    """It waits for a node that has its task type."""
    RUNNING = "running"
    """A node holds it."""
    RETRYING = "retrying"
    """A run asked for a retry, which waits until it is due."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """It failed permanently, and its message was not kept."""
    DEAD = "dead"
    """Its message is a dead letter: it failed permanently, or could not run."""
    CANCELLED = "cancelled"
    """It was revoked or cancelled, or has expired; it will not run again."""
    UNKNOWN = "unknown"
    """There is no message and no readable result: never submitted, or finished and no longer stored."""

    @property
    def is_final(self) -> bool:
        """Whether the task stays in this state unless somebody acts on it."""
        return self in FINAL


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.DEAD, State.CANCELLED})


class WaitsFor(NamedTuple):
    """The limit that does not let a task run yet."""

    kind: str
    """``rate``; ``slots``: as many run as may; ``unique``: one with the same key runs."""
    limit: str
    """Its name: the task type, for a level of concurrency with its template, as in ``shop.export/{tenant}``."""
    key: str
    """Its key; empty: one for all."""
    running: tuple[str, ...] = ()
    """Ids of some of the running tasks that it waits for."""


class Moment(NamedTuple):
    """Something that happened to a task, or will happen."""

    at: float
    """Unix seconds, by the clock of the process that recorded it."""
    what: str
    """``submitted``, ``due``, ``parked``, ``started``, ``retried``, ``revoked``, ``cancelled``, ``succeeded``,
    ``failed``, ``buried``."""
    detail: str = ""


@dataclass(frozen=True)
class TaskState:
    """Everything known about one task. Unknown fields are empty, 0 or ``None``."""

    id: str
    state: State
    celery_state: str = "PENDING"
    """``AsyncResult.state``."""
    task: str = ""
    queue: str = ""
    priority: int | None = None
    node: str = ""
    """The node that holds it, or held it last; by its epoch if the node's name is unknown."""
    attempts: int = 0
    """Number of runs that have started, or were claimed and may have started."""
    crashes: int = 0
    """Number of runs of its current message whose process died."""
    next_at: float | None = None
    """Earliest time of its next run, Unix seconds."""
    waits_for: WaitsFor | None = None
    """What a blocked task waits for."""
    args: str = ""
    """As text, shortened."""
    kwargs: str = ""
    error: str = ""
    """Error of the last failed run."""
    traceback: str = ""
    letter: str = ""
    """The name of its dead letter, for ``taskapp dead show``."""
    progress: Progress | None = None
    timeline: tuple[Moment, ...] = ()
    """Earliest first."""
    log_lines: int = 0
    """Number of stored log lines."""
    unreadable: str = ""
    """Why its stored result cannot be read; empty if it can."""
    remark: str = ""
    """A note that helps people interpret the state."""

    def as_json(self) -> dict[str, Any]:
        """Return the state as JSON-serializable values."""
        return {
            **asdict(self),
            "state": str(self.state),
            "progress": self.progress and self.progress._asdict(),
            "waits_for": self.waits_for and self.waits_for._asdict(),
            "timeline": [moment._asdict() for moment in self.timeline],
        }
