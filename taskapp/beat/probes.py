"""Probes of a beat: whether its loop turns and its server answers."""

from __future__ import annotations

import atexit
from time import monotonic
from typing import Any

from celery.beat import beat_nodename  # type: ignore[attr-defined]  # missing in the stubs

from taskapp.probes.health import Status
from taskapp.probes.status_file import Reporter
from taskapp.settings import get_settings


def watch_beat(sender: Any, **_: Any) -> None:
    """Start reporting the status of a starting beat to probes.

    The status comes from ``turn_due_at``, ``is_connecting`` and ``is_in_touch`` of the scheduler, see
    ``beat.Scheduler``.
    """
    scheduler = sender.scheduler
    status = Status(beat_nodename(getattr(sender, "hostname", None)))
    # Set now, so that a beat that never reaches its servers is reported, too.
    scheduler.turn_due_at = status.broker_at = monotonic()

    def look(status: Status, now: float) -> None:
        status.phase = "starting" if scheduler.is_connecting else "running"
        status.turn_due_at = scheduler.turn_due_at
        if scheduler.is_in_touch:
            status.broker_at = now

    reporter = Reporter(get_settings().data_dir, status, look)
    reporter.start()
    atexit.register(reporter.stop)
