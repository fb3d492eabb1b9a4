"""Every error taskapp raises, as one tree.

Each takes fields; its message names the problem, the value and the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "BrokerFull",
    "BrokerNotFound",
    "BrokerUnavailable",
    "CrashedTooOften",
    "DuplicateTask",
    "EmbeddedServerFailed",
    "InvalidPayload",
    "InvalidSetting",
    "NoEngine",
    "NotQueued",
    "OutOfMemory",
    "PathNotAllowed",
    "PayloadTooLarge",
    "PermanentError",
    "PushError",
    "SubmitInterrupted",
    "SubmitOutcomeUnknown",
    "TaskappError",
    "TooManyFollowUps",
    "TransientError",
    "UnknownQueue",
    "UnknownSetting",
    "UnknownTask",
    "did_you_mean",
]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` with the closest match in ``known``, or the empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


class TaskappError(Exception):
    """Base class of all errors of taskapp."""


# --- configuration ---------------------------------------------------------------------------


class UnknownSetting(TaskappError):
    """A ``TASKAPP_`` variable is not a setting."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        super().__init__(f"unknown setting {name}{did_you_mean(name, known).replace(chr(39), '')}")


class InvalidSetting(TaskappError):
    """A setting has an invalid value."""

    def __init__(self, name: str, value: object, problem: str) -> None:
        self.name = name
        super().__init__(f"setting {name} cannot be {value!r}: {problem}")


class UnknownQueue(TaskappError):
    """A message is for a queue that is not configured."""

    def __init__(self, name: str, known: Iterable[str], remedy: str = "add one with TASKAPP_QUEUES") -> None:
        self.name = name
        known = list(known)
        super().__init__(f"no queue named {name!r}{did_you_mean(name, known)} (queues: {', '.join(known)}; {remedy})")


# --- the broker ------------------------------------------------------------------------------


class BrokerNotFound(TaskappError):
    """No Redis is configured, and the embedded server may not or cannot be started."""


class EmbeddedServerFailed(TaskappError):
    """The embedded Redis server did not come up, or cannot read its data."""


class BrokerUnavailable(TaskappError):
    """The broker could not be reached before the deadline; nothing was queued."""

    def __init__(self, task_name: str, task_id: str, deadline_seconds: float, reason: object) -> None:
        self.task_name = task_name
        self.task_id = task_id
        named = f"{task_name!r} (id {task_id})" if task_id else repr(task_name)
        super().__init__(
            f"the broker did not accept {named} within {deadline_seconds:g} s: {_plain(reason)}; "
            "it is not queued: check the broker and submit again"
        )


class PushError(TaskappError):
    """Messages are not queued, or may not be; ``task_ids`` are the ids of their tasks."""

    def __init__(self, task_ids: Sequence[str], sentence: str) -> None:
        self.task_ids = list(task_ids)
        super().__init__(f"{_named(self.task_ids)}: {sentence}")

    @property
    def task_id(self) -> str:
        """The first id."""
        return self.task_ids[0] if self.task_ids else ""

    def about(self, task_ids: Sequence[str]) -> PushError | None:
        """Return this error restricted to ``task_ids``; ``None`` if all of them are queued."""
        mine = [task_id for task_id in self.task_ids if task_id in set(task_ids)]
        return self._of(mine) if mine else None

    def _of(self, task_ids: Sequence[str]) -> PushError:
        # Only subclasses are raised; each copies itself with its own fields.
        raise NotImplementedError


class NotQueued(PushError):
    """The broker could not be reached before the deadline; none of ``task_ids`` was queued."""

    def __init__(self, task_ids: Sequence[str], deadline_seconds: float, reason: object) -> None:
        self.deadline_seconds = deadline_seconds
        self.reason = reason
        super().__init__(
            task_ids,
            f"the broker did not accept it within {deadline_seconds:g} s: {_plain(reason)}; "
            "it is not queued: check the broker and submit again",
        )

    def _of(self, task_ids: Sequence[str]) -> PushError:
        return NotQueued(task_ids, self.deadline_seconds, self.reason)


class SubmitOutcomeUnknown(PushError):
    """The broker did not answer: ``task_ids`` may or may not be queued, ``not_queued`` are not.

    Submitting the same ids again from this process within an hour is safe: nothing is queued twice.
    """

    def __init__(
        self, task_ids: Sequence[str], not_queued: Sequence[str], deadline_seconds: float, reason: object
    ) -> None:
        self.not_queued = list(not_queued)
        self.deadline_seconds = deadline_seconds
        self.reason = reason
        super().__init__(
            task_ids,
            f"the broker did not answer within {deadline_seconds:g} s: {_plain(reason)}; it may or may not be queued: "
            "submit it again with the same task_id once the broker answers",
        )

    def about(self, task_ids: Sequence[str]) -> PushError | None:
        """Return this error restricted to ``task_ids``; ``None`` if all of them are queued."""
        wanted = set(task_ids)
        unknown = [task_id for task_id in self.task_ids if task_id in wanted]
        not_queued = [task_id for task_id in self.not_queued if task_id in wanted]
        if unknown:
            return SubmitOutcomeUnknown(unknown, not_queued, self.deadline_seconds, self.reason)
        return NotQueued(not_queued, self.deadline_seconds, self.reason) if not_queued else None


class BrokerFull(PushError):
    """Redis has no memory left; none of ``task_ids`` was queued. Nodes keep running and free memory."""

    def __init__(self, task_ids: Sequence[str], reason: object) -> None:
        self.reason = reason
        super().__init__(
            task_ids,
            f"Redis is full ({_plain(reason)}); it is not queued: submit again later, add nodes or raise maxmemory",
        )

    def _of(self, task_ids: Sequence[str]) -> PushError:
        return BrokerFull(task_ids, self.reason)


class SubmitInterrupted(TaskappError):
    """Submitting many tasks stopped halfway.

    Items that the iterable had not yielded are untouched.
    """

    def __init__(
        self, task_name: str, queued: Sequence[Any], unknown: Mapping[str, Any], not_queued: Sequence[Any],
        reason: object,
    ) -> None:  # fmt: skip
        self.queued = list(queued)
        """Results of the queued tasks."""
        self.unknown = dict(unknown)
        """Task id to arguments of tasks that may or may not be queued; submitting the same id again is safe."""
        self.not_queued = list(not_queued)
        """Arguments of the tasks that were taken from the iterable and are not queued."""
        super().__init__(
            f"submitting many {task_name!r} stopped: {_plain(reason)}; {len(self.queued)} are queued, "
            f"{len(self.not_queued)} are not, the outcome of {len(self.unknown)} is unknown"
        )


class DuplicateTask(TaskappError):
    """Tasks were refused because another one has their unique key; others that were submitted with them are queued."""

    def __init__(self, task_name: str, existing: Mapping[str, str]) -> None:
        self.task_name = task_name
        self.existing = dict(existing)
        """Id of each refused task to the id of the task that has its key."""
        super().__init__(task_name, self.existing)

    def __str__(self) -> str:
        others = ", ".join(dict.fromkeys(self.existing.values()))
        return f"{self.task_name!r} is not queued: its unique key belongs to {others}; use that result, or wait for it"


class NoEngine(TaskappError):
    """A feature of the delivery engine was used with another broker."""

    def __init__(self, broker_url: str) -> None:
        super().__init__(f"this needs Redis as the broker, not {broker_url!r}; see TASKAPP_BROKER_URL")


def _plain(reason: object) -> str:
    return str(reason).rstrip(".")


def _named(task_ids: list[str]) -> str:
    return f"task {task_ids[0]}" if len(task_ids) == 1 else f"{len(task_ids)} tasks"


# --- submitting ------------------------------------------------------------------------------


class InvalidPayload(TaskappError):
    """Arguments do not match the task type; retrying does not help."""

    def __init__(self, task_name: str, problems: str) -> None:
        self.task_name = task_name
        self.problems = problems
        super().__init__(task_name, problems)

    def __str__(self) -> str:
        return f"invalid arguments for {self.task_name!r}: {self.problems}"


class PayloadTooLarge(TaskappError):
    """Arguments exceed the maximum size of a message."""

    def __init__(
        self, task_name: str, size_bytes: int, limit_bytes: int, setting: str = "TASKAPP_MAX_PAYLOAD_BYTES"
    ) -> None:
        self.task_name = task_name
        super().__init__(
            f"arguments of {task_name!r} take {size_bytes} bytes, more than the limit of {limit_bytes}; "
            f"pass a path or an id instead, or raise {setting}"
        )


class UnknownTask(TaskappError):
    """A task type is not registered."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        super().__init__(f"no task named {name!r}{did_you_mean(name, known)}")


class TooManyFollowUps(TaskappError):
    """The end of a task sends more messages than one step can queue."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"more than {limit} tasks would follow this one in a single step; "
            "send them from the body of a task, or link several smaller groups"
        )


# --- running ---------------------------------------------------------------------------------


class PermanentError(TaskappError):
    """A failure that a retry cannot fix. Never retried."""


class TransientError(TaskappError):
    """A failure that may be gone later; the built-in task types retry it.

    ``retry_after_seconds`` is set if the other side asked for a delay; the retry waits at least
    that long.
    """

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message, retry_after_seconds)

    def __str__(self) -> str:
        return str(self.args[0])


class OutOfMemory(TaskappError):
    """A task ran out of memory and failed; the worker keeps running."""

    def __str__(self) -> str:
        return (
            f"the task ran out of memory: {self.args[0]}"
            if self.args and self.args[0]
            else "the task ran out of memory"
        )


class TaskExited(TaskappError):
    """A task tried to end the process it shares with others, by ``sys.exit()`` for example; it failed."""

    def __str__(self) -> str:
        return f"the task raised {self.args[0]}, which would end the whole worker; raise another exception instead"


class CoroutineCancelled(TaskappError):
    """A coroutine let a CancelledError escape that did not come from the worker; the task failed."""

    def __str__(self) -> str:
        return (
            "the coroutine ended with a CancelledError although nobody cancelled the task; catch it, or raise another "
            "exception"
        )


class CrashedTooOften(TaskappError):
    """A task killed its process too often; its message is a dead letter, if the broker keeps any."""

    def __init__(self, task_name: str, task_id: str) -> None:
        self.task_name = task_name
        super().__init__(task_name, task_id)

    def __str__(self) -> str:
        return (
            f"{self.args[0]!r} (id {self.args[1]}) killed the process that ran it too often; its message is kept, "
            "see 'taskapp dead list' (with RabbitMQ: the dead-letter exchange of its queue, if there is one)"
        )


class NotStarted(TaskappError):
    """A task did not start because of its limits; its message is a dead letter."""

    def __init__(self, task_name: str, task_id: str, why: str) -> None:
        super().__init__(task_name, task_id, why)

    def __str__(self) -> str:
        task, identity, why = self.args
        return f"{task!r} (id {identity}) did not start: {why}; its message is kept, see 'taskapp dead list'"


class UnreadableFailure(TaskappError):
    """The stored result of a failed task names an error that cannot be raised here."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)

    def __str__(self) -> str:
        return f"the task failed with {self.args[0]!r}, which a result must not raise: {self.args[1]}"


class NotSettled(TaskappError):
    """The settlement of a finished task failed."""

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(task, problem)

    def __str__(self) -> str:
        return (
            f"{self.args[0]!r} could not be settled: {self.args[1]!r}; its message is kept, "
            "see 'taskapp dead list' (with RabbitMQ: the dead-letter exchange of its queue, if there is one)"
        )


class KeyTaken(TaskappError):
    """A dead letter cannot be replayed because another task has its unique key."""

    def __init__(self, letter: str, task_id: str) -> None:
        super().__init__(letter, task_id)

    def __str__(self) -> str:
        return f"{self.args[0]} stays dead: the task {self.args[1]} has its unique key; replay it when that has ended"


class PathNotAllowed(PermanentError):
    """A path is outside the directories that tasks may use."""

    def __init__(self, path: object, roots: Iterable[object]) -> None:
        self.path = str(path)
        self.roots = [str(root) for root in roots]
        super().__init__(self.path, self.roots)

    def __str__(self) -> str:
        return (
            f"path {self.path!r} is outside the directories that tasks may use "
            f"({', '.join(self.roots) or 'none'}); add its directory to TASKAPP_FILE_DIRS"
        )
