"""Tasks on gevent that leave a greenlet behind, which exits."""

from __future__ import annotations

import os
import sys
from typing import Any

import gevent
from celery import shared_task


def leave(how: str) -> None:
    if how == "SystemExit":
        sys.exit(3)
    raise KeyboardInterrupt


@shared_task
def leave_one(how: str, where: str) -> int:
    """Leave a greenlet that exits: while the task waits, or after its end."""

    spawn: Any = gevent.spawn_raw if where == "raw" else gevent.spawn
    if where == "later":
        gevent.spawn_later(0.2, leave, how)
    else:
        spawn(leave, how)
        gevent.sleep(0.2)
    return os.getpid()


@shared_task
def pid() -> int:
    return os.getpid()


@shared_task
def waits() -> None:
    gevent.sleep(60)
