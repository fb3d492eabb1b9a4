"""Errors about limits: their declaration, their keys, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from taskapp.errors import InvalidPayload, TaskappError, did_you_mean

SHOWN_MOST = 120
LISTED_MOST = 10


class BadTypeOption(TaskappError, ValueError):
    """An option of a task type is invalid."""

    @classmethod
    def of(cls, task: str, option: str, value: object, remedy: str) -> Self:
        """Return the error for ``option`` of ``task``, with its value."""
        shown = repr(value)
        shown = shown if len(shown) <= SHOWN_MOST else f"{shown[: SHOWN_MOST - 3]}..."
        return cls(f"task {task!r} cannot have {option}={shown}: {remedy}")


class BadLimit(BadTypeOption):
    """An option that limits a task type, or one call of it, is invalid."""


class BadLimitKey(InvalidPayload, ValueError):
    """The arguments of a call, or its options, make no valid key or cost for a limit."""

    @classmethod
    def of(cls, task: str, option: str, problem: str) -> Self:
        """Return the error for ``option`` of ``task``."""
        return cls(task, f"{option}: {problem}")

    def __str__(self) -> str:
        return f"task {self.task_name!r} cannot be submitted: {self.problems}"


class LimitNeedsRedis(TaskappError):
    """A limit is declared, but the broker is not Redis."""

    def __init__(self, task: str, option: str) -> None:
        self.task_name, self.option = task, option
        super().__init__(task, option)

    def __str__(self) -> str:
        return (
            f"task {self.task_name!r} cannot have the option {self.option!r}: it needs Redis as the broker; remove it, "
            "or set TASKAPP_BROKER_URL to a Redis"
        )


class BadCircuitBreaker(TaskappError, ValueError):
    """A ``CircuitBreaker`` has an invalid value."""

    def __init__(self, name: str, value: object, remedy: str) -> None:
        super().__init__(f"CircuitBreaker({name}={value!r}) is invalid: {remedy}")


class NoRateToPause(TaskappError):
    """A task pauses its rate, but has none that holds for all nodes."""

    def __init__(self, task: str) -> None:
        self.task_name = task
        super().__init__(task)

    def __str__(self) -> str:
        return (
            f"task {self.task_name!r} cannot pause its rate: it has none that holds for all nodes; declare one, as in "
            "rate_limit='100/m', without rate_scope='node'"
        )


class BadPause(TaskappError, ValueError):
    """A task pauses its rate for something that is no number of seconds."""

    def __init__(self, task: str, seconds: object, longest: int) -> None:
        super().__init__(
            f"task {task!r} cannot pause its rate for {seconds!r}: use a number of seconds from 0 to {longest:,}"
        )


class UnknownLimit(TaskappError):
    """No node and no code declares a limit of this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        names = sorted(known)
        more = ", …" if len(names) > LISTED_MOST else ""
        shown = f" (limits: {', '.join(names[:LISTED_MOST])}{more})" if names else ""
        remedy = "declare it with the task type, with rate_limit or max_concurrency"
        super().__init__(f"no limit of tasks is named {name!r}{did_you_mean(name, names)}; {remedy}{shown}")


class NoSuchLimit(TaskappError):
    """A task type has no limit of this kind."""

    def __init__(self, name: str, option: str, levels: Iterable[str]) -> None:
        self.name = name
        names = ", ".join(levels)
        remedy = f"its levels are {names}" if names else "declare it with the task type"
        super().__init__(f"{name!r} declares no {option} for all nodes, so that nothing would change; {remedy}")
