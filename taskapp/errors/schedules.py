"""Errors of schedules: an invalid schedule, or a conflict with the schedules that exist."""

from __future__ import annotations

from collections.abc import Iterable

from taskapp.errors import NoEngine, TaskappError, did_you_mean
from taskapp.errors.extras import MissingExtra


class BadSchedule(TaskappError):
    """A field of a schedule is invalid; ``field`` names it."""

    def __init__(self, field: str, value: object, why: str, remedy: str) -> None:
        self.field = field
        self.value = value
        self.why, self.remedy = why, remedy
        shown = repr(value)
        shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
        super().__init__(f"{field} of a schedule cannot be {shown}: {why}; {remedy}")


class SolarUnavailable(MissingExtra):
    """A solar schedule needs a package that is missing."""

    def __init__(self) -> None:
        super().__init__("a solar schedule", "ephem", "solar")


class NoSchedules(NoEngine):
    """Schedules are used without a Redis to store them."""

    def __init__(self, broker_url: str) -> None:
        TaskappError.__init__(
            self,
            f"schedules need Redis as the broker or for results, but the broker is {broker_url!r}; "
            "set TASKAPP_RESULT_URL to a Redis",
        )


class UnknownSchedule(TaskappError):
    """No schedule has this name."""

    def __init__(self, name: str, known: Iterable[str], command: str = "taskapp") -> None:
        self.name = name
        super().__init__(f"no schedule named {name!r}{did_you_mean(name, known)}; see: {command} schedules list")


class ScheduleExists(TaskappError):
    """A schedule with this name already exists."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"a schedule named {name!r} already exists; edit it, or replace it with --replace")


class ScheduleChanged(TaskappError):
    """Another client changed a schedule at the same time."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"schedule {name!r} was changed or removed at the same time; check it and try again")


class ConfiguredSchedule(TaskappError):
    """A schedule is defined by ``beat_schedule`` in the configuration, and cannot be edited."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"schedule {name!r} cannot be changed or removed here: it comes from beat_schedule in the configuration; "
            "change it there, or pause it"
        )
