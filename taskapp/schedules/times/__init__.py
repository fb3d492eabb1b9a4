"""Due times as pure arithmetic, without clock or connection.

Instants are Unix seconds in UTC, on a grid of whole milliseconds.
"""

from taskapp.schedules.times.cron import Cron, Crontab
from taskapp.schedules.times.instants import duration_text, floor_ms, utc_text
from taskapp.schedules.times.interval import Interval, Once
from taskapp.schedules.times.parsing import parse_duration, parse_instant, parse_when
from taskapp.schedules.times.serialization import when_from
from taskapp.schedules.times.solar import Solar
from taskapp.schedules.times.ticks import jitter_ms, tick_id
from taskapp.schedules.times.timing import Timing, When, zone_of
from taskapp.schedules.times.zones import local_date, offset_change

__all__ = [
    "Cron",
    "Crontab",
    "Interval",
    "Once",
    "Solar",
    "Timing",
    "When",
    "duration_text",
    "floor_ms",
    "jitter_ms",
    "local_date",
    "offset_change",
    "parse_duration",
    "parse_instant",
    "parse_when",
    "tick_id",
    "utc_text",
    "when_from",
    "zone_of",
]
