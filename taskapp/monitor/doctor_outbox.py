"""The doctor's check of the outbox that ``TASKAPP_OUTBOX_URL`` names."""

from __future__ import annotations

from taskapp.errors import TaskappError
from taskapp.monitor.doctor_checks import CheckOutcome, fail, ok, warn
from taskapp.outbox.opening import open_store

LATE_SECONDS = 60.0
"""How long a row may wait while a relay runs; it looks every second."""


def outbox(url: str) -> CheckOutcome:
    """Check that the outbox at ``url`` can be used, and that relays keep up."""
    try:
        store = open_store(url)
        backlog = store.backlog()
        store.close()
    except TaskappError as error:
        return fail(str(error), "check TASKAPP_OUTBOX_URL")
    if backlog.refused:
        return warn(f"{backlog.refused} tasks could not be queued", "taskapp outbox list --refused")
    found = f"{backlog.waiting} tasks wait, the oldest for {backlog.oldest_seconds:.0f} s"
    if backlog.oldest_seconds > LATE_SECONDS:
        return warn(found, "check that a node with TASKAPP_OUTBOX_URL, or taskapp outbox run, is running")
    return ok(found if backlog.waiting else "no task waits")
