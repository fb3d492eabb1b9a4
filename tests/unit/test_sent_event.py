"""Events of submitted tasks on other brokers than the engine's."""

from __future__ import annotations

import threading
from typing import Any

from celery import Celery
from celery.events.dispatcher import EventDispatcher

from taskapp.client.sent_event import SentEventDispatcher


class Producer:
    """Publishes, or waits until it may."""

    def __init__(self, may_go_on: threading.Event | None = None) -> None:
        self.published, self.has_begun, self._may_go_on = 0, threading.Event(), may_go_on

    def publish(self, *_: Any, **__: Any) -> None:
        self.has_begun.set()
        if self._may_go_on is not None:
            assert self._may_go_on.wait(20)
        self.published += 1


def test_an_event_waits_for_no_other_that_is_being_published() -> None:
    """A child that forks meanwhile would wait forever: the publishing thread is its parent's."""
    app: Any = Celery("events", set_as_current=False)
    dispatcher = SentEventDispatcher(EventDispatcher(app=app, enabled=False))
    may_go_on = threading.Event()
    slow, quick = Producer(may_go_on), Producer()
    thread = threading.Thread(target=dispatcher.publish, args=("task-sent", {"uuid": "slow"}, slow))
    thread.start()
    try:
        assert slow.has_begun.wait(20)
        done = threading.Thread(target=dispatcher.publish, args=("task-sent", {"uuid": "quick"}, quick), daemon=True)
        done.start()
        done.join(20)
        assert quick.published == 1
    finally:
        may_go_on.set()
        thread.join()
    assert slow.published == 1
