"""Schedules, described in the order in which a due time travels.

``times`` computes due times without reading a clock. ``schedule`` defines a schedule: task type, arguments, times, and
the policies for missed due times and unfinished runs. While beats run, ``reader`` reads the schedules in Redis and
``store`` changes them. ``leader`` is the part of the leading beat that queues due ticks; ``taskapp.beat.scheduler``
plugs it into ``celery beat``.
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
