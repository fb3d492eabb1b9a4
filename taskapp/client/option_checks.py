"""Checks the options of a submit that would otherwise fail deep inside, or at the node."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
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


def check_content(name: str, serializer: Any, compressor: Any) -> None:
    """Make sure that the arguments of a task of type ``name`` can be written so.

    Raises:
        BadOption: Nothing here can.
    """
    if serializer not in serializers():
        there_are = ", ".join(sorted(serializers()))
        raise BadOption(name, "serializer", serializer, f"give one that is installed here: {there_are}")
    if compressor:
        try:
            compression.get_encoder(compressor)
        except (KeyError, TypeError):
            there_are = ", ".join(sorted(compressions()))
            raise BadOption(name, "compression", compressor, f"give one that is installed here: {there_are}") from None


def check_links(name: str, options: Options) -> None:
    """Make sure that what follows a task of type ``name`` are tasks.

    Raises:
        BadOption: Something else does.
    """
    for option in LINKS:
        for one in maybe_list(options.get(option)) or ():
            if not isinstance(one, Mapping):
                raise BadOption(name, option, one, "give a signature, such as add.s(1), or a list of them")


def check_priority(name: str, priority: Any) -> None:
    """Make sure that a task of type ``name`` can have this priority; ``None``: the default.

    Raises:
        BadOption: It is no integer from 0 to 9.
    """
    if priority is None:
        return
    if type(priority) is bool or not isinstance(priority, int) or not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        remedy = f"give an integer from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}, where {HIGHEST_PRIORITY} goes first"
        raise BadOption(name, "priority", priority, remedy)


def times_of(name: str, options: Options, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Return when a task is due, ``None``: at once, and when it is not to be run any more, ``None``: never; aware.

    Raises:
        BadOption: ``countdown``, ``eta`` or ``expires`` is no time.
    """
    countdown, eta, expires = options.get("countdown"), options.get("eta"), options.get("expires")
    if countdown is not None and not isinstance(countdown, Real):
        raise BadOption(name, "countdown", countdown, "give a number of seconds")
    due = _at(name, "countdown", countdown, now) if countdown else _at(name, "eta", eta, now) if eta else None
    return due, None if expires is None else _at(name, "expires", expires, now)


def _at(name: str, option: str, value: Any, now: datetime) -> datetime:
    try:
        if not isinstance(value, Real):
            return _moment(value, now.tzinfo)
        seconds = float(value)
        if isfinite(seconds) and seconds >= EARLIEST_SECONDS:
            return now + timedelta(seconds=seconds)
    except (ValueError, TypeError, AttributeError, OverflowError):
        pass
    what = "seconds" if option == "countdown" else "a datetime" if option == "eta" else "seconds or a datetime"
    raise BadOption(name, option, value, f"give {what} that a calendar has")


def _moment(value: Any, zone: tzinfo | None) -> datetime:
    moment: datetime = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
