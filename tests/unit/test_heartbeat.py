"""A heartbeat that is asked for again and again."""

from __future__ import annotations

from typing import Any

from taskapp.broker.clock import Clock
from taskapp.broker.heartbeat import Heartbeat
from taskapp.broker.options import Options


def test_hurrying_again_before_the_next_beat_adds_none() -> None:
    link: Any = None
    heartbeat = Heartbeat(link, Options(), Clock(), lambda _: None)

    for _ in range(100):
        heartbeat.hurry()

    assert heartbeat._orders.qsize() == 1
