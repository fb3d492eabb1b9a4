"""Collecting what is submitted, to push it by the thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from taskapp.broker.delivery import PUSHED_AT_ONCE, Message

Push = Callable[[Sequence[Message]], None]
Command = tuple[Any, ...]


class Bulk:
    """Messages of one ``collecting`` block that wait to be pushed together."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self._push: Push | None = None
        self._events: list[Command] = []
        self._publish: Callable[[list[Command]], Any] | None = None

    def add(self, message: Message, push: Push) -> None:
        """Keep ``message``; push what was kept when there are a thousand already."""
        if push != self._push or len(self.waiting) >= PUSHED_AT_ONCE:
            self.flush()
            self._push = push
        self.waiting.append(message)

    def flush(self) -> None:
        """Push what was kept. Raises what the push raises; nothing is kept then either."""
        waiting, self.waiting = self.waiting, []
        events, self._events = self._events, []
        if waiting and self._push is not None:
            self._push(waiting)
        if events and self._publish is not None:
            self._publish(events)

    def add_event(self, command: Command, publish: Callable[[list[Command]], Any]) -> None:
        """Keep an event of a kept message, to be published after it."""
        self._events.append(command)
        self._publish = publish


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
