"""Errors about single tasks that somebody asks for."""

from __future__ import annotations

from typing import Self

from taskapp.errors import InvalidPayload, PermanentError, TaskappError


class NoSuchTask(TaskappError):
    """An id of which there is neither a message nor a result."""

    def __init__(self, task_id: str, kept_seconds: int) -> None:
        self.task_id = task_id
        super().__init__(
            f"no task with the id {task_id!r} waits, runs or has a result; check the id, and that TASKAPP_BROKER_URL "
            f"and TASKAPP_KEY_PREFIX are those of its node (results are kept for {kept_seconds} s, see "
            "TASKAPP_RESULT_EXPIRES_SECONDS, and not at all where they are ignored)"
        )


class NoTaskLogs(TaskappError):
    """Log lines of tasks, asked for where there is no Redis that could keep them."""

    def __init__(self) -> None:
        super().__init__(
            "log lines of tasks are kept in Redis, and neither tasks nor results use one; "
            "set TASKAPP_RESULT_URL to a Redis, for nodes and here"
        )


class MessageRefused(TaskappError):
    """A message that this node must not run: its content type, or its signature."""


class StrategyCannotRun(TaskappError):
    """A task type whose own ``Strategy`` cannot run its tasks in the way it asks for."""

    def __init__(self, name: str, strategy: object, what: str, instead: str) -> None:
        shown = strategy if isinstance(strategy, str) else getattr(strategy, "__qualname__", strategy)
        super().__init__(
            f"task {name!r} is {what}, which its own Strategy ({shown}) does not run; {instead}, "
            "or derive its Strategy from taskapp.worker.consume.strategy.Strategy"
        )


class BadRequestClass(TaskappError):
    """A ``Task.Request`` that is no request."""

    def __init__(self, given: object) -> None:
        super().__init__(
            f"Task.Request cannot be {given!r}; give it a class derived from celery.worker.request.Request"
        )


class ResultTooLarge(PermanentError):
    """What a task returned, or raised, takes more than a result may."""

    @classmethod
    def of(cls, what: str, size: int, most: int) -> Self:
        """Say that ``what`` takes ``size`` bytes where ``most`` are allowed."""
        return cls(
            f"{what} takes {size:,} bytes, more than the {most:,} of TASKAPP_MAX_RESULT_BYTES; "
            "store it elsewhere and return where it is, or raise the limit"
        )


class BadMessageProperty(TaskappError):
    """A property of a message, given as an option of a submit, that has no meaning."""

    def __init__(self, name: str, option: str, value: object, what: str) -> None:
        super().__init__(f"task {name!r} cannot be submitted with {option}={value!r}: it is a number, {what}")


class BadOption(InvalidPayload, ValueError):
    """An option of a submit that has no meaning."""

    def __init__(self, name: str, option: str, value: object, remedy: str) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
        super().__init__(name, f"{option} is {shown}; {remedy}")

    def __str__(self) -> str:
        return f"task {self.task_name!r} cannot be submitted: {self.problems}"


class BadHeaders(InvalidPayload):
    """Options of a submit of which no node could read what they make of a header."""

    def __str__(self) -> str:
        return f"task {self.task_name!r} cannot be submitted: {self.problems}"


class NoResultsKept(TaskappError, NotImplementedError):
    """A result, asked for where none is kept."""

    def __init__(self) -> None:
        super().__init__(
            "no results are kept: the broker is no Redis and TASKAPP_RESULT_URL is not set; set it to a Redis or a "
            "database, for nodes and here"
        )


class UnreadableResult(TaskappError):
    """What is stored as the result of a task is none, or holds what cannot be made here."""

    def __init__(self, why: str, key: str = "") -> None:
        super().__init__(why, key)
        self.why = why

    def __str__(self) -> str:
        where = f" under {self.args[1]!r}" if self.args[1] else ""
        return (
            f"the result stored{where} cannot be read: {self.why}; "
            "it is damaged, or another program wrote it: delete it, or submit the task again"
        )
