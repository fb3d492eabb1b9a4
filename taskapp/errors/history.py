"""Errors of the history of finished tasks, and of the task options that keep values out of it."""

from __future__ import annotations

from collections.abc import Iterable

from taskapp.errors import TaskappError, did_you_mean
from taskapp.errors.extras import MissingExtra


class HistoryPackageMissing(MissingExtra):
    """The package for the database is missing."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__("history", package, extra)


class HistoryOff(TaskappError):
    """The history is not turned on."""

    def __init__(self) -> None:
        super().__init__("no history is kept; set TASKAPP_HISTORY=true for every node, then run: taskapp history run")


class HistoryAway(TaskappError):
    """The database of the history cannot be used."""

    def __init__(self, url: str, reason: object) -> None:
        lines = str(reason).strip().splitlines()
        super().__init__(
            f"the history at {url!r} cannot be used: {lines[0] if lines else reason!r}; check TASKAPP_HISTORY_URL"
        )


class HistoryEmpty(TaskappError):
    """The database holds no history yet."""

    def __init__(self, url: str) -> None:
        super().__init__(f"there is no history at {url!r} yet; to write one, run: taskapp history run")


class HistoryTooNew(TaskappError):
    """A newer taskapp has written the history in a layout that this one does not know."""

    def __init__(self, url: str, found: int, known: int) -> None:
        super().__init__(
            f"the history at {url!r} has layout {found}, but this taskapp knows layout {known}; "
            "upgrade taskapp here, or set another TASKAPP_HISTORY_URL"
        )


class BadDatabaseURL(TaskappError):
    """A URL does not name a database."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"history cannot be kept at {url!r}: {why}; set TASKAPP_HISTORY_URL to sqlite:////path/to/file, "
            "postgresql://user:password@host/name or mysql://user:password@host/name"
        )


class NoPlaceForEnds(TaskappError):
    """No Redis is configured to hold finished tasks until they are written to the history."""

    def __init__(self, broker_url: str) -> None:
        super().__init__(
            f"history needs Redis as the broker or for results, not {broker_url!r}; set TASKAPP_RESULT_URL=redis://…"
        )


class BadCursor(TaskappError):
    """A cursor is invalid."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not a valid cursor of the history; use the one printed after the previous page")


class UnknownState(TaskappError):
    """A name is not a final state of a task."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        states = tuple(known)
        super().__init__(f"no final state named {name!r}{did_you_mean(name, states)}; states: {', '.join(states)}")


class UnknownTaskOption(TaskappError):
    """A task type has an option that looks like a misspelt option of taskapp."""

    def __init__(self, task: str, option: str, known: Iterable[str]) -> None:
        super().__init__(f"task {task!r} has an unknown option {option!r}{did_you_mean(option, known)}")


class BadMasks(TaskappError):
    """The ``masks`` of a task type are invalid."""

    def __init__(self, task: str, masks: object) -> None:
        super().__init__(f"masks of task {task!r} cannot be {masks!r}; name arguments, as in masks=('password',)")
