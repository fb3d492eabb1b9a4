"""Errors of timed jobs: what somebody wrote cannot be a schedule, or does not fit what is there."""

from __future__ import annotations

from collections.abc import Iterable

from taskapp.errors import NoEngine, TaskappError, did_you_mean


class BadSchedule(TaskappError):
    """A part of a schedule that cannot be used; ``field`` names it."""

    def __init__(self, field: str, value: object, why: str, remedy: str) -> None:
        self.field = field
        self.value = value
        shown = repr(value)
        shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
        super().__init__(f"{field} of a schedule cannot be {shown}: {why}; {remedy}")


class SolarUnavailable(TaskappError):
    """A solar schedule where nothing can compute one."""

    def __init__(self) -> None:
        super().__init__("solar schedules need the package ephem; install it with pip install 'taskapp[solar]'")


class NoSchedules(NoEngine):
    """Schedules where there is no Redis to keep them in."""

    def __init__(self, broker_url: str) -> None:
        TaskappError.__init__(
            self,
            f"schedules need a Redis, as the broker or for results, and the broker is {broker_url!r}; "
            "see TASKAPP_RESULT_URL",
        )


class UnknownSchedule(TaskappError):
    """There is no schedule of this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        super().__init__(f"no schedule named {name!r}{did_you_mean(name, known)}; see: taskapp schedules list")


class ScheduleExists(TaskappError):
    """There is a schedule of this name already."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"there is a schedule named {name!r}; edit it, or replace it with: --replace")


class ScheduleChanged(TaskappError):
    """Somebody else changed a schedule at the same time."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"schedule {name!r} was changed or removed at the same time; look at it and try again")


class ConfiguredSchedule(TaskappError):
    """A schedule that is not kept here alone: ``beat_schedule`` in the configuration says what it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"schedule {name!r} cannot be changed or removed here: it comes from beat_schedule in the configuration; "
            "change it there, or pause it"
        )


class BrokerAway(TaskappError):
    """Ticks cannot be published now: the broker is away, or takes nothing."""

    def __init__(self, reason: object) -> None:
        super().__init__(f"{type(reason).__name__}: {reason}")


class RefusedByBroker(TaskappError):
    """A tick that the broker does not take, as often as it is published."""

    def __init__(self, reason: object) -> None:
        super().__init__(f"the broker refused it: {reason}")
