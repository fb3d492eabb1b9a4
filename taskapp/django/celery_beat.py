"""The periodic tasks of ``django-celery-beat``, in the form that ``taskapp schedules import`` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from taskapp.errors.schedules import BadSchedule

DISABLED = "disabled in django-celery-beat"
SECONDS = {"days": 86_400.0, "hours": 3_600.0, "minutes": 60.0, "seconds": 1.0, "microseconds": 1e-6}


def periodic_tasks() -> Iterator[Any]:
    """Yield the rows of ``PeriodicTask``, oldest first."""
    from django_celery_beat.models import PeriodicTask

    related = ("interval", "crontab", "solar", "clocked")
    yield from PeriodicTask.objects.select_related(*related).order_by("pk")


def form_of(row: Any) -> dict[str, Any]:
    """Return a periodic task as ``taskapp schedules export`` would print it.

    An ``expires`` date becomes the end of the schedule, ``one_off`` a single run. Its description and its run counts
    have no place.

    Raises:
        BadSchedule: It has no due times, or its arguments or headers are not JSON.
    """
    options: dict[str, Any] = {}
    if row.exchange:
        options["exchange"] = row.exchange
    if row.routing_key:
        options["routing_key"] = row.routing_key
    if headers := _json(row, "headers"):
        options["headers"] = headers
    if row.expire_seconds is not None:
        options["expires"] = row.expire_seconds
    form = {
        "name": row.name, "task": row.task, "when": _when(row), "args": _json(row, "args"),
        "kwargs": _json(row, "kwargs"), "queue": row.queue or None, "priority": row.priority, "options": options,
        "start_at": row.start_time and row.start_time.timestamp(), "end_at": row.expires and row.expires.timestamp(),
        "max_runs": int(row.one_off),
    }  # fmt: skip
    if row.crontab:
        form["zone"] = str(row.crontab.timezone)
    return form if row.enabled else {**form, "paused": DISABLED}


def _json(row: Any, name: str) -> Any:
    text = getattr(row, name)
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadSchedule(name, text, f"it is not JSON: {error}", "correct it in Django's admin") from error


def _when(row: Any) -> dict[str, Any]:
    if cron := row.crontab:
        names = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
        return {"kind": "crontab", "zone": str(cron.timezone), **{name: getattr(cron, name) for name in names}}
    if row.interval:
        return {"kind": "interval", "seconds": row.interval.every * SECONDS[row.interval.period]}
    if row.clocked:
        return {"kind": "once", "at": row.clocked.clocked_time.timestamp()}
    if row.solar:
        latitude, longitude = float(row.solar.latitude), float(row.solar.longitude)
        return {"kind": "solar", "event": row.solar.event, "latitude": latitude, "longitude": longitude}
    raise BadSchedule("when", None, "it has no interval, crontab, solar event or time", "give it one in Django's admin")
