"""Collecting what is submitted, to push it by the thousand, or by 1 MiB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from taskapp.engine.producer import PUSHED_AT_ONCE, PUSHED_BYTES_AT_ONCE, Message, Producer, steps_of


class Bulk:
    """Messages of one ``collecting`` block that wait to be pushed together."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.size = 0
        """How many bytes wait."""
        self._producer: Producer | None = None
        self.on_pushed: list[Callable[[], Any]] = []

    def add(self, message: Message, producer: Producer, on_pushed: Callable[[], Any] | None = None) -> None:
        """Keep ``message``; push what was kept when that is enough for one step already.

        Args:
            message: What is to be pushed.
            producer: Pushes it, with those it is kept with.
            on_pushed: Called once it is queued.
        """
        is_full = len(self.waiting) >= PUSHED_AT_ONCE or self.size >= PUSHED_BYTES_AT_ONCE
        if is_full or producer is not self._producer:
            self.flush()
            self._producer = producer
        self.waiting.append(message)
        self.size += len(message.blob)
        if on_pushed is not None:
            self.on_pushed.append(on_pushed)

    def flush(self) -> None:
        """Push what was kept. Raises what the push raises; nothing is kept then either."""
        waiting, self.waiting, self.size = self.waiting, [], 0
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
        self.size += len(message.blob)
        if on_pushed is not None:
            self.on_pushed.append(on_pushed)

    def flush(self) -> None:
        """Push nothing."""

    def steps(self) -> Iterator[tuple[Producer, list[Message]]]:
        """Yield what is to be pushed together, by whom: all, or as much as a step takes if it is many bytes."""
        for producer, messages in self.producers.items():
            start = 0
            for end in steps_of(messages) if self.size > PUSHED_BYTES_AT_ONCE else [len(messages)]:
                yield producer, messages[start:end]
                start = end


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
