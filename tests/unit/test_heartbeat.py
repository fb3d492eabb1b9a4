"""Heartbeats that are asked for again and again, or fail."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest

from taskapp.engine.clock import Clock
from taskapp.engine.heartbeat import BEAT, END, Heartbeat
from taskapp.engine.options import Options


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


def test_a_loop_is_not_judged_by_a_thread_that_was_stopped_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_of: list[str] = []
    now = [100.0]

    class Link:
        def run(self, name: str, *args: Any) -> Any:
            asked_of.append(args[2])
            now[0] += 0.001
            return 0, 0, 0, 1, 0, 0, [], 0

        def close(self) -> None:
            pass

    link: Any = Link()
    heartbeat = Heartbeat(link, Options(lease_seconds=3.0), Clock(), lambda _: None, stands_still=lambda: True)
    heartbeat.begin("epoch")
    heartbeat.opened("epoch")
    for module in ("heartbeat", "wakeups"):
        monkeypatch.setattr(f"taskapp.engine.{module}.monotonic", lambda: now[0])
    woken = iter([(5.0, BEAT), (5.0, BEAT), (0.0, BEAT), (0.0, END)])

    def wait(wait_seconds: float) -> str:
        late_seconds, order = next(woken)
        now[0] += wait_seconds + late_seconds
        return order

    heartbeat._next_order = wait  # type: ignore[method-assign]
    heartbeat._run()

    assert asked_of == ["epoch", "", ""], "one late beat renews the lease; a second one in a row does not"
