"""Timed jobs, in the order a due time travels.

``times`` says when something is due and reads no clock. ``schedule`` is what people write down: a task
type, its arguments, its times, what happens when a due time was missed or the last run is unfinished.
``register`` looks at
the schedules in Redis and ``store`` changes them, while beats run. ``leader`` is the one beat that
queues what is due. ``taskapp.beat.scheduler`` puts it into ``celery beat``.
"""

from __future__ import annotations

from taskapp.schedules.schedule import Schedule
from taskapp.schedules.times import Cron, Crontab, Interval, Once, Solar, parse_duration, parse_instant, parse_when

__all__ = [
    "Cron",
    "Crontab",
    "Interval",
    "Once",
    "Schedule",
    "Solar",
    "parse_duration",
    "parse_instant",
    "parse_when",
]
