"""Errors about single tasks: lookups, submit options, results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from taskapp.errors import InvalidPayload, PermanentError, TaskappError, did_you_mean


class NoSuchTask(TaskappError):
    """A task id has neither a message nor a result."""

    def __init__(self, task_id: str, kept_seconds: int) -> None:
        self.task_id = task_id
        super().__init__(
            f"no task with the id {task_id!r} is waiting, is running or has a result; check the id, and that "
            f"TASKAPP_BROKER_URL and TASKAPP_KEY_PREFIX are those of its node (results are kept for {kept_seconds} s, "
            "see TASKAPP_RESULT_EXPIRES_SECONDS, and not at all for tasks that ignore them)"
        )


class NoTaskLogs(TaskappError):
    """Log lines of tasks are requested, but there is no Redis to store them."""

    def __init__(self) -> None:
        super().__init__(
            "log lines of tasks are kept in Redis, but neither the broker nor the result backend is one; "
            "set TASKAPP_RESULT_URL to a Redis, for nodes and here"
        )


class MessageRefused(TaskappError):
    """This node must not run a message, because of its content type or its signature."""


class StrategyCannotRun(TaskappError):
    """The ``Strategy`` of a task type does not support the kind of that task type."""

    def __init__(self, name: str, strategy: object, what: str, instead: str) -> None:
        shown = strategy if isinstance(strategy, str) else getattr(strategy, "__qualname__", strategy)
        super().__init__(
            f"task {name!r} is {what}, which its own Strategy ({shown}) does not support; {instead}, "
            "or derive its Strategy from taskapp.worker.consume.strategy.Strategy"
        )


class BadRequestClass(TaskappError):
    """``Task.Request`` is not a request class."""

    def __init__(self, given: object) -> None:
        super().__init__(
            f"Task.Request cannot be {given!r}; set it to a class derived from celery.worker.request.Request"
        )


class ResultTooLarge(PermanentError):
    """A task returned, or raised, more bytes than a result may have."""

    @classmethod
    def of(cls, what: str, size: int, most: int) -> Self:
        """Return the error for ``what``, which takes ``size`` bytes where ``most`` are allowed."""
        return cls(
            f"{what} takes {size:,} bytes, more than the {most:,} of TASKAPP_MAX_RESULT_BYTES; "
            "store it elsewhere and return its location, or raise the limit"
        )


class BadMessageProperty(TaskappError):
    """An option of a submit sets a message property to an invalid value."""

    def __init__(self, name: str, option: str, value: object, what: str) -> None:
        super().__init__(f"task {name!r} cannot be submitted with {option}={value!r}: it must be a number, {what}")


class BadOption(InvalidPayload, ValueError):
    """An option of a submit is invalid."""

    def __init__(self, name: str, option: str, value: object, remedy: str) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
        super().__init__(name, f"{option} is {shown}; {remedy}")

    def __str__(self) -> str:
        return f"task {self.task_name!r} cannot be submitted: {self.problems}"


class UnknownOption(InvalidPayload, TypeError):
    """A submit has an option that nothing reads."""

    @classmethod
    def of(cls, name: str, option: str, known: Iterable[str]) -> Self:
        """Return the error for ``option`` of a task of type ``name``."""
        remedy = did_you_mean(option, known) or "; pass arguments of the task in args or kwargs"
        return cls(name, f"there is no option {option!r}{remedy}")

    def __str__(self) -> str:
        return f"task {self.task_name!r} cannot be submitted: {self.problems}"


class NoNameOfTask(TaskappError, TypeError):
    """``send_task`` was given something other than the name of a task type."""

    def __init__(self, given: object) -> None:
        name = getattr(given, "name", None)
        remedy = f"pass {name!r}, or call its apply_async()" if isinstance(name, str) else "pass its name as text"
        super().__init__(f"send_task takes the name of a task type, not {given!r}; {remedy}")


class BadHeaders(InvalidPayload):
    """Options of a submit lead to headers that no node could read."""

    def __str__(self) -> str:
        return f"task {self.task_name!r} cannot be submitted: {self.problems}"


class NoResultsKept(TaskappError, NotImplementedError):
    """A result is requested, but no results are kept."""

    def __init__(self, backend: str = "") -> None:
        """Say why: the project has chosen ``backend``, or nobody has named a place."""
        why = "the broker is not Redis and TASKAPP_RESULT_URL is not set; set it"
        if backend:
            why = f"the app's result backend is {backend!r}; set it, or `result_backend` in its configuration,"
        super().__init__(f"no results are kept: {why} to a Redis or a database, for nodes and here")


class UnreadableResult(TaskappError):
    """The stored result of a task is damaged, or needs a class that does not exist here."""

    def __init__(self, why: str, key: str = "") -> None:
        super().__init__(why, key)
        self.why = why

    def __str__(self) -> str:
        where = f" under {self.args[1]!r}" if self.args[1] else ""
        return (
            f"the stored result{where} cannot be read: {self.why}; "
            "it is damaged or was written by another program: delete it, or submit the task again"
        )
