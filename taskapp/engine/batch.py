"""Collects submitted messages, to push them in steps of up to a thousand messages or 1 MiB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from taskapp.engine.producer import PUSHED_AT_ONCE, PUSHED_BYTES_AT_ONCE, Message, Producer, steps_of


class Bulk:
    """Messages of one ``collecting`` block, to be pushed together."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.size = 0
        """Bytes in ``waiting``."""
        self._producer: Producer | None = None
        self.on_pushed: list[Callable[[], Any]] = []

    def add(self, message: Message, producer: Producer, on_pushed: Callable[[], Any] | None = None) -> None:
        """Keep ``message``; first push what is kept if it already fills one step.

        Args:
            message: The message to push.
            producer: Pushes it. A change of producer pushes what is kept.
            on_pushed: Called once the message is queued.
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
        """Push what is kept; errors are those of ``Producer.push``. Nothing is kept afterwards, even if it raises."""
        waiting, self.waiting, self.size = self.waiting, [], 0
        callbacks, self.on_pushed = self.on_pushed, []
        if waiting and self._producer is not None:
            self._producer.push(waiting)
        for call in callbacks:
            call()


class Held(Bulk):
    """Submitted messages that another caller pushes."""

    def __init__(self) -> None:
        super().__init__()
        self.producers: dict[Producer, list[Message]] = {}
        self.writes: list[Callable[[], Any]] = []
        """Calls to make before the push, on a thread: they block."""

    def add(self, message: Message, producer: Producer, on_pushed: Callable[[], Any] | None = None) -> None:
        """Keep ``message``."""
        self.producers.setdefault(producer, []).append(message)
        self.size += len(message.blob)
        if on_pushed is not None:
            self.on_pushed.append(on_pushed)

    def flush(self) -> None:
        """Do nothing: the caller of ``holding`` pushes."""

    def steps(self) -> Iterator[tuple[Producer, list[Message]]]:
        """Yield producers with the messages to push in one call: all of them, or one step's worth if they are large."""
        for producer, messages in self.producers.items():
            start = 0
            for end in steps_of(messages) if self.size > PUSHED_BYTES_AT_ONCE else [len(messages)]:
                yield producer, messages[start:end]
                start = end


_current: ContextVar[Bulk | None] = ContextVar("taskapp_bulk", default=None)


def current() -> Bulk | None:
    """Return the collector of this context; ``None`` if messages are pushed at once."""
    return _current.get()


def is_held() -> bool:
    """Return whether another caller pushes the tasks that are submitted here, see ``holding``."""
    return isinstance(_current.get(), Held)


def before_push(write: Callable[[], Any]) -> None:
    """Call ``write`` now, or leave it to the caller of ``holding``, who calls it before the push."""
    bulk = _current.get()
    if isinstance(bulk, Held):
        bulk.writes.append(write)
    else:
        write()


@contextmanager
def collecting() -> Iterator[Bulk]:
    """Collect the tasks submitted inside, and push them at the end if not before. An error inside drops them."""
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
    """Hold the tasks submitted inside; the caller makes ``Held.writes`` and then pushes them."""
    held = Held()
    token = _current.set(held)
    try:
        yield held
    finally:
        _current.reset(token)
