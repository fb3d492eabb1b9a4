"""Checks options of a submit that would otherwise fail deep inside Celery, or on the node."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import isfinite
from numbers import Real
from typing import Any

from kombu import compression
from kombu.utils.functional import maybe_list

from taskapp.celery_internals import compressions, serializers
from taskapp.errors.tasks import BadOption
from taskapp.queues import HIGHEST_PRIORITY, LOWEST_PRIORITY

Options = Mapping[str, Any]

EARLIEST_SECONDS = -(2**31)
LINKS = ("link", "link_error")
TIMES = {
    "countdown": "a finite number of seconds", "eta": "a datetime or an ISO 8601 string",
    "expires": "seconds, a datetime or an ISO 8601 string",
    "deadline": "seconds, a datetime or an ISO 8601 string",
}  # fmt: skip
"""What the value of each option may be."""


def check_content(name: str, serializer: Any, compressor: Any) -> None:
    """Check that serializer and compression of a task of type ``name`` are installed.

    Raises:
        BadOption: One of them is not.
    """
    if serializer not in serializers():
        there_are = ", ".join(sorted(serializers()))
        raise BadOption(name, "serializer", serializer, f"use one that is installed here: {there_are}")
    if compressor:
        try:
            compression.get_encoder(compressor)
        except (KeyError, TypeError):
            there_are = ", ".join(sorted(compressions()))
            raise BadOption(name, "compression", compressor, f"use one that is installed here: {there_are}") from None


def check_links(name: str, options: Options) -> None:
    """Check that the links of a task of type ``name`` are signatures.

    Raises:
        BadOption: One of them is not.
    """
    for option in LINKS:
        for one in maybe_list(options.get(option)) or ():
            if not isinstance(one, Mapping):
                raise BadOption(name, option, one, "use a signature, such as add.s(1), or a list of them")


def check_priority(name: str, priority: Any) -> None:
    """Check the priority of a task of type ``name``; ``None``: the default.

    Raises:
        BadOption: It is not an integer from 0 to 9.
    """
    if priority is None:
        return
    if type(priority) is bool or not isinstance(priority, int) or not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        remedy = f"use an integer from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}, where {HIGHEST_PRIORITY} runs first"
        raise BadOption(name, "priority", priority, remedy)


def times_of(name: str, options: Options, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Return when a task is due (``None``: at once) and when it expires (``None``: never), as aware datetimes.

    Raises:
        BadOption: ``countdown``, ``eta`` or ``expires`` is not a valid time.
    """
    countdown, eta, expires = options.get("countdown"), options.get("eta"), options.get("expires")
    if countdown is not None and not isinstance(countdown, Real):
        raise BadOption(name, "countdown", countdown, "use a number of seconds")
    due = None
    if countdown or eta:
        due = moment_of(name, "countdown", countdown, now) if countdown else moment_of(name, "eta", eta, now)
    return due, None if expires is None else moment_of(name, "expires", expires, now)


def moment_of(name: str, option: str, value: Any, now: datetime) -> datetime:
    """Return the time that ``option`` of a task of type ``name`` gives; errors are those of ``times_of``."""
    try:
        if not isinstance(value, Real):
            return _moment(value)
        seconds = float(value)
        if isfinite(seconds) and seconds >= EARLIEST_SECONDS:
            return now + timedelta(seconds=seconds)
    except (ValueError, TypeError, AttributeError, OverflowError):
        pass
    raise BadOption(name, option, value, f"use {TIMES[option]}, up to the year 9999")


def _moment(value: Any) -> datetime:
    moment: datetime = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)  # as Celery's nodes read it
