"""Every error taskapp raises, as one tree.

Each takes fields and says what went wrong, with which value, and what to do now.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BrokerNotFound",
    "BrokerUnavailable",
    "EmbeddedServerFailed",
    "InvalidPayload",
    "InvalidSetting",
    "PathNotAllowed",
    "PayloadTooLarge",
    "PermanentError",
    "TaskappError",
    "TransientError",
    "UnknownQueue",
    "UnknownSetting",
    "UnknownTask",
    "did_you_mean",
]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the likeliest of ``known``, or the empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


class TaskappError(Exception):
    """Root of all errors of taskapp."""


# --- configuration ---------------------------------------------------------------------------


class UnknownSetting(TaskappError):
    """A ``TASKAPP_`` variable that no setting has."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        super().__init__(f"unknown setting {name}{did_you_mean(name, known).replace(chr(39), '')}")


class InvalidSetting(TaskappError):
    """A setting whose value cannot be used."""

    def __init__(self, name: str, value: object, problem: str) -> None:
        self.name = name
        super().__init__(f"setting {name} cannot be {value!r}: {problem}")


class UnknownQueue(TaskappError):
    """A message for a queue that no setting names."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        known = list(known)
        super().__init__(
            f"no queue named {name!r}{did_you_mean(name, known)} "
            f"(queues: {', '.join(known)}; add one with TASKAPP_QUEUES)"
        )


# --- the broker ------------------------------------------------------------------------------


class BrokerNotFound(TaskappError):
    """There is no Redis to use and none may or can be started."""


class EmbeddedServerFailed(TaskappError):
    """A server of ours was started and did not come up, or does not fit its data."""


class BrokerUnavailable(TaskappError):
    """The broker did not take a message before the deadline."""

    def __init__(self, task_name: str, task_id: str, deadline_seconds: float, reason: object) -> None:
        self.task_name = task_name
        self.task_id = task_id
        super().__init__(
            f"the broker did not confirm {task_name!r} (id {task_id}) within {deadline_seconds:g} s: "
            f"{reason}; it may or may not be queued, check the broker and submit again"
        )


# --- submitting ------------------------------------------------------------------------------


class InvalidPayload(TaskappError):
    """Arguments that do not fit the task type; retrying does not help."""

    def __init__(self, task_name: str, problems: str) -> None:
        self.task_name = task_name
        self.problems = problems
        super().__init__(task_name, problems)

    def __str__(self) -> str:
        return f"arguments of {self.task_name!r} are not valid: {self.problems}"


class PayloadTooLarge(TaskappError):
    """Arguments that take more bytes than a message may have."""

    def __init__(self, task_name: str, size_bytes: int, limit_bytes: int) -> None:
        self.task_name = task_name
        super().__init__(
            f"arguments of {task_name!r} take {size_bytes} bytes, more than the limit of {limit_bytes}; "
            "pass a path or an id instead, or raise TASKAPP_MAX_PAYLOAD_BYTES"
        )


class UnknownTask(TaskappError):
    """A task type that is not registered."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        super().__init__(f"no task named {name!r}{did_you_mean(name, known)}")


# --- running ---------------------------------------------------------------------------------


class PermanentError(TaskappError):
    """A failure that trying again cannot mend. Never retried."""


class TransientError(TaskappError):
    """A failure that may be gone later; task types that ship retry it.

    ``retry_after_seconds`` is set where the other side said when to come back; the retry then
    waits at least that long.
    """

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message, retry_after_seconds)

    def __str__(self) -> str:
        return str(self.args[0])


class PathNotAllowed(PermanentError):
    """A path outside the directories tasks may touch."""

    def __init__(self, path: object, roots: Iterable[object]) -> None:
        self.path = str(path)
        self.roots = [str(root) for root in roots]
        super().__init__(self.path, self.roots)

    def __str__(self) -> str:
        return (
            f"path {self.path!r} is outside the directories tasks may use "
            f"({', '.join(self.roots) or 'none'}); add its directory to TASKAPP_FILE_DIRS"
        )
