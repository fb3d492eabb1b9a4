"""Collecting what is submitted, to push it by the thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from taskapp.broker.delivery import PUSHED_AT_ONCE, Message, Producer


class Bulk:
    """Messages of one ``collecting`` block that wait to be pushed together."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self._producer: Producer | None = None
        self.on_pushed: list[Callable[[], Any]] = []

    def add(self, message: Message, producer: Producer, on_pushed: Callable[[], Any] | None = None) -> None:
        """Keep ``message``; push what was kept when there are a thousand already.

        Args:
            message: What is to be pushed.
            producer: Pushes it, with those it is kept with.
            on_pushed: Called once it is queued.
        """
        if producer is not self._producer or len(self.waiting) >= PUSHED_AT_ONCE:
            self.flush()
            self._producer = producer
        self.waiting.append(message)
        if on_pushed is not None:
            self.on_pushed.append(on_pushed)

    def flush(self) -> None:
        """Push what was kept. Raises what the push raises; nothing is kept then either."""
        waiting, self.waiting = self.waiting, []
        callbacks, self.on_pushed = self.on_pushed, []
        if waiting and self._producer is not None:
            self._producer.push(waiting)
        for call in callbacks:
            call()


class Held(Bulk):
    """What was submitted and is to be pushed by somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self.producers: dict[Producer, list[Message]] = {}

    def add(self, message: Message, producer: Producer, on_pushed: Callable[[], Any] | None = None) -> None:
        """Keep ``message``."""
        self.producers.setdefault(producer, []).append(message)
        if on_pushed is not None:
            self.on_pushed.append(on_pushed)

    def flush(self) -> None:
        """Push nothing."""


_current: ContextVar[Bulk | None] = ContextVar("taskapp_bulk", default=None)


def current() -> Bulk | None:
    """Return what collects in this context, if anything does."""
    return _current.get()


@contextmanager
def collecting() -> Iterator[Bulk]:
    """Collect the tasks submitted inside, and push them at the latest at the end. An error inside drops them."""
    outer = _current.get()
    if outer is not None:
        yield outer
        return
    bulk = Bulk()
    token = _current.set(bulk)
    try:
        yield bulk
    finally:
        _current.reset(token)
    bulk.flush()


@contextmanager
def holding() -> Iterator[Held]:
    """Hold the tasks submitted inside; whoever asked for it pushes them."""
    held = Held()
    token = _current.set(held)
    try:
        yield held
    finally:
        _current.reset(token)
