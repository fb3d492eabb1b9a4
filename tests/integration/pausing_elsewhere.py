"""A task type for a broker that has no rates for all nodes."""

from __future__ import annotations

from taskapp import Task, shared_task


@shared_task(bind=True, rate_limit="100/s")
def pauses(self: Task) -> None:
    self.pause_rate(30)
