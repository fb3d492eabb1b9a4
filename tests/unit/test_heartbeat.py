"""Heartbeats that are asked for again and again, or fail."""

from __future__ import annotations

from threading import Event
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


def test_a_beat_that_fails_is_not_the_last() -> None:
    beaten, count = Event(), iter(range(100))

    class Link:
        def run(self, *_: Any) -> Any:
            if next(count) >= 2:
                beaten.set()
            raise ValueError("what nobody expects")

        def close(self) -> None:
            pass

    link: Any = Link()
    heartbeat = Heartbeat(link, Options(lease_seconds=1.0), Clock(), lambda _: None)

    heartbeat.start()

    assert beaten.wait(10)
    heartbeat.stop()
