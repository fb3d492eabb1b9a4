"""What is said of one task."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from taskapp.engine.task_notes import Progress


class State(StrEnum):
    """Where a task stands. One at a time."""

    QUEUED = "queued"
    """It waits in its queue for a free slot."""
    DELAYED = "delayed"
    """It waits for its time."""
    PARKED = "parked"
    """It waits for a node that has its task type."""
    RUNNING = "running"
    """A node has it."""
    RETRYING = "retrying"
    """A run has asked for another, which waits for its time."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """It failed for good, and its message was not kept."""
    DEAD = "dead"
    """Its message is among the dead letters: it failed for good, or could not be run."""
    CANCELLED = "cancelled"
    """It was revoked or cancelled, or has expired: it does not run any more."""
    UNKNOWN = "unknown"
    """There is no message, and no result that can be read: never submitted, or finished and no longer kept."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens to the task by itself."""
        return self in FINAL


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.DEAD, State.CANCELLED})


class Moment(NamedTuple):
    """Something that happened to a task, or will."""

    at: float
    """Unix seconds, by the clock of whoever noted it."""
    what: str
    """``submitted``, ``due``, ``parked``, ``started``, ``retried``, ``revoked``, ``cancelled``, ``succeeded``,
    ``failed``, ``buried``."""
    detail: str = ""


@dataclass(frozen=True)
class TaskState:
    """All that is known of one task. What is not known is empty, 0 or ``None``."""

    id: str
    state: State
    celery_state: str = "PENDING"
    """What ``AsyncResult.state`` says."""
    task: str = ""
    queue: str = ""
    priority: int | None = None
    node: str = ""
    """The node that has it, or had it last; a node that did not say its name is named by its epoch."""
    attempts: int = 0
    """How many runs have begun, or were claimed and may have."""
    crashes: int = 0
    """How many of the runs of its present message ended with their process."""
    next_at: float | None = None
    """When it runs next at the earliest, Unix seconds."""
    args: str = ""
    """As text, shortened."""
    kwargs: str = ""
    error: str = ""
    """Of the last run that failed."""
    traceback: str = ""
    letter: str = ""
    """The name of its dead letter, for ``taskapp dead show``."""
    progress: Progress | None = None
    timeline: tuple[Moment, ...] = ()
    """The earliest first."""
    log_lines: int = 0
    """How many log lines are kept."""
    unreadable: str = ""
    """Why what is stored as its result cannot be read."""
    remark: str = ""
    """What one should know to read this rightly; for people."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            **asdict(self),
            "state": str(self.state),
            "progress": self.progress and self.progress._asdict(),
            "timeline": [moment._asdict() for moment in self.timeline],
        }
