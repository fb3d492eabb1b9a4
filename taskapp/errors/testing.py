"""Errors of the testing kit."""

from __future__ import annotations

from collections.abc import Iterable

from taskapp.errors import TaskappError, did_you_mean


class NoAppToTest(TaskappError):
    """The testing kit does not know which app to test."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"the testing kit needs your app: {problem}; set `taskapp_app = proj.celery:app` in the pytest section of "
            "pyproject.toml or pytest.ini, or override the fixture `taskapp_app` to return it"
        )


class NotInKit(TaskappError):
    """Something needs a Redis server, which the in-process kit does not have."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} needs a Redis server, which the fixture `tasks` replaces; use the fixture `taskapp_worker`"
        )


class TooManyRuns(TaskappError):
    """Tasks keep submitting tasks that are due at once."""

    def __init__(self, most: int, names: Iterable[str]) -> None:
        super().__init__(
            f"{most} tasks ran and more are due, last {', '.join(names)}; give tasks that submit themselves a "
            "countdown, or raise `most`"
        )


class NoSuchTaskType(TaskappError):
    """A message waits for a task type that the app does not have; a real node would park it."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        super().__init__(
            f"the app has no task type {name!r}{did_you_mean(name, known)}; import its module, or list it in `include`"
        )


class UnusableMessage(TaskappError):
    """A message would go to the dead letters instead of being run."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"a node would move this message to the dead letters: {problem}")


class UnknownEntry(TaskappError):
    """``start_beat`` names an entry that ``beat_schedule`` lacks."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        listed = sorted(known)
        super().__init__(
            f"beat_schedule has no entry {name!r}{did_you_mean(name, listed)}; it has {', '.join(listed) or 'none'}"
        )


class BadMark(TaskappError):
    """An argument of the marker ``taskapp`` is unknown."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        listed = sorted(known)
        super().__init__(
            f"@pytest.mark.taskapp has no option {name!r}{did_you_mean(name, listed)}: {', '.join(listed)}"
        )


class BackwardsInTime(TaskappError):
    """``advance`` was asked to move the clock back."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the clock cannot move back by {-seconds:g} s; give a duration such as '1h' or 90")


class BadTime(TaskappError, ValueError):
    """A time or a duration given to the kit is none."""

    def __init__(self, name: str, value: object, why: str, remedy: str) -> None:
        super().__init__(f"{name} cannot be {value!r}: {why}; {remedy}")


class WorkerNotStarted(TaskappError):
    """The node of the fixture ``taskapp_worker`` did not become ready."""

    def __init__(self, problem: str, log: str) -> None:
        super().__init__(f"the node for tests did not start: {problem}; its log ends with:\n{log}")
