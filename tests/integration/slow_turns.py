"""Lets a node come late to the news of its children: each turn of its loop begins with a pause."""

from __future__ import annotations

import time
from typing import Any

from celery.signals import worker_ready
from kombu.asynchronous import get_event_loop

PAUSE_SECONDS = 0.3


@worker_ready.connect
def pause_each_turn(**_: Any) -> None:
    hub: Any = get_event_loop()
    hub.on_tick.add(lambda: time.sleep(PAUSE_SECONDS))
