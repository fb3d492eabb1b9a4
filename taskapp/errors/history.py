"""Errors of the history of finished tasks, and of the options by which task types keep things out of it."""

from __future__ import annotations

from collections.abc import Iterable

from taskapp.errors import TaskappError, did_you_mean


class HistoryPackageMissing(TaskappError):
    """A package is missing that speaks to the database."""

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        super().__init__(f"history needs the package {package}; install it with pip install 'taskapp[{extra}]'")


class HistoryOff(TaskappError):
    """Nobody asked for a history."""

    def __init__(self) -> None:
        super().__init__("no history is kept; set TASKAPP_HISTORY=true for every node, then run: taskapp history run")


class HistoryAway(TaskappError):
    """The database cannot be used."""

    def __init__(self, url: str, reason: object) -> None:
        lines = str(reason).strip().splitlines()
        super().__init__(
            f"the history at {url!r} cannot be used: {lines[0] if lines else reason!r}; check TASKAPP_HISTORY_URL"
        )


class HistoryEmpty(TaskappError):
    """Nothing was ever written there."""

    def __init__(self, url: str) -> None:
        super().__init__(f"there is no history at {url!r} yet; it is written by: taskapp history run")


class HistoryTooNew(TaskappError):
    """Another taskapp has laid it out in a way that this one does not know."""

    def __init__(self, url: str, found: int, known: int) -> None:
        super().__init__(
            f"the history at {url!r} has layout {found}, this taskapp knows {known}; "
            "run the newer one here, too, or set another TASKAPP_HISTORY_URL"
        )


class BadDatabaseURL(TaskappError):
    """Something that names no database."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"history cannot be kept at {url!r}: {why}; give TASKAPP_HISTORY_URL as sqlite:////path/to/file, "
            "postgresql://user:password@host/name or mysql://user:password@host/name"
        )


class NoPlaceForEnds(TaskappError):
    """No Redis holds finished tasks until they are written down."""

    def __init__(self, broker_url: str) -> None:
        super().__init__(
            f"history needs Redis as the broker or for results, not {broker_url!r}; set TASKAPP_RESULT_URL=redis://…"
        )


class BadCursor(TaskappError):
    """Something that is no place in a list."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is no place in the history; take the one that the page before ended with")


class UnknownState(TaskappError):
    """No task ends like that."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        states = tuple(known)
        super().__init__(f"no task ends as {name!r}{did_you_mean(name, states)}; states are: {', '.join(states)}")


class UnknownTaskOption(TaskappError):
    """An option of a task type that is nearly one of ours."""

    def __init__(self, task: str, option: str, known: Iterable[str]) -> None:
        super().__init__(f"task {task!r} has an option {option!r}, which nothing reads{did_you_mean(option, known)}")


class BadMasks(TaskappError):
    """``masks`` of a task type that cannot be used."""

    def __init__(self, task: str, masks: object) -> None:
        super().__init__(f"masks of task {task!r} cannot be {masks!r}; name arguments, as in masks=('password',)")
