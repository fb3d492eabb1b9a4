"""Conversion of due times back from their JSON form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from taskapp.errors import did_you_mean
from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times.cron import Cron, Crontab
from taskapp.schedules.times.interval import Interval, Once
from taskapp.schedules.times.solar import Solar
from taskapp.schedules.times.timing import When

_KINDS: dict[str, tuple[Callable[..., When], tuple[str, ...], tuple[str, ...]]] = {
    "cron": (Cron, ("expression",), ("zone", "twice")),
    "crontab": (Crontab, (), ("minute", "hour", "day_of_month", "month_of_year", "day_of_week", "zone")),
    "interval": (Interval, ("seconds",), ("anchor_at",)),
    "once": (Once, ("at",), ()),
    "solar": (Solar, ("event", "latitude", "longitude"), ()),
}
"""For each kind: its class, its required keys and its optional keys."""


def when_from(form: Mapping[str, Any]) -> When:
    """Return the due times whose ``as_dict`` returned ``form``.

    Raises:
        BadSchedule: A key is unknown or missing, or a value is invalid.
    """
    if not isinstance(form, Mapping):
        raise BadSchedule("when", form, "it is not an object with keys", "give what as_dict() returns")
    kind = form.get("kind", "")
    if not isinstance(kind, str) or kind not in _KINDS:
        close = did_you_mean(str(kind)[:40], _KINDS).removeprefix("; ")
        raise BadSchedule("kind", kind, "there is no such kind", close or f"give one of {', '.join(_KINDS)}")
    made_by, needed, optional = _KINDS[kind]
    _check_keys(kind, form, needed=("kind", *needed), optional=optional)
    return made_by(**{key: value for key, value in form.items() if key != "kind"})


def _check_keys(kind: str, form: Mapping[str, Any], *, needed: Iterable[str], optional: Iterable[str]) -> None:
    known = [*needed, *optional]
    for key in form:
        if key not in known:
            close = did_you_mean(str(key)[:40], known).removeprefix("; ")
            raise BadSchedule(kind, key, "there is no such key", close or f"keys are {', '.join(known)}")
    for key in needed:
        if key not in form:
            raise BadSchedule(kind, dict(form), f"{key!r} is missing", f"add {key!r}")
