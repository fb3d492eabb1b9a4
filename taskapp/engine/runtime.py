"""The engine's objects of one process: for each server a producer and, if the process consumes, a node.

They belong to the process, not to a channel or connection, which kombu and Celery recreate at any
time; and not to a forked child, which starts with none.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from redis.connection import Connection

from taskapp.background import in_child
from taskapp.engine import batch, settlement
from taskapp.engine.node import Node
from taskapp.engine.options import NodeProfile, Options
from taskapp.engine.producer import Message, Producer
from taskapp.engine.suspects import NOBODY, Suspects
from taskapp.redis.link import Link

role = NodeProfile()
"""Capabilities of this process; its worker sets them before it consumes."""


class Runtime:
    """The producer and the node of this process for one server."""

    def __init__(self, connect: Callable[[], Connection], options: Options, deadline_seconds: float) -> None:
        self.connect = connect
        self.producer = Producer(Link(connect), options, deadline_seconds)
        self.node = Node(connect, options, role)
        self.is_inherited = False
        """Whether it belongs to the parent process, from which this one was forked."""

    def post(self, message: Message, on_pushed: Callable[[], Any] | None = None) -> None:
        """Send ``message``: with the settlement of a run, with a batch that is being collected, or at once.

        Every task that this process sends to the engine passes through here. ``on_pushed`` is called once the message
        is queued or has been added to a settlement; errors are those of ``Producer.push``.
        """
        if (run := settlement.current()) is not None:
            run.add(message)
        elif (collector := batch.current()) is not None:
            collector.add(message, self.producer, on_pushed)
            return
        else:
            self.producer.push((message,))
        if on_pushed is not None:
            on_pushed()


_processes: dict[str, Runtime] = {}


def runtime_for(server: str, make: Callable[[], Runtime]) -> Runtime:
    """Return this process's runtime for ``server``, created by the first call.

    All threads get the same one: a second producer would not know the doubtful pushes of the first.
    """
    # Atomic without a lock, which another thread could hold at the moment of a fork.
    return _processes.get(server) or _processes.setdefault(server, make())


def _leave_to_parent() -> None:
    for process in _processes.values():
        process.is_inherited = True
    _processes.clear()


in_child(_leave_to_parent)


def loop_turned() -> None:
    """Record that the loop of this process runs, although it serves no consumer now."""
    for process in _processes.values():
        if process.node.epoch:
            process.node.turned_at = monotonic()


def count(name: str) -> None:
    """Count a message that is dropped, such as an ``expired`` one."""
    for process in _processes.values():
        if process.node.epoch:
            process.node.count(name)


def is_in_touch() -> bool:
    """Return whether, as far as is known, every server that this process consumes from is reachable."""
    nodes = [process.node for process in list(_processes.values()) if process.node.epoch]
    return all(node.pipe.is_open and node.heartbeat.is_answered for node in nodes)


def holds_messages() -> bool:
    """Return whether this process holds messages that are not settled."""
    return any(process.node.held for process in list(_processes.values()))


def leave() -> None:
    """Stop returning messages one by one when their runs end; ``close_nodes`` returns all of them unchanged."""
    for process in list(_processes.values()):
        process.node.is_leaving = True


def crash() -> None:
    """Let the leases of this process expire, so that its messages count as those of a process that died."""
    for process in list(_processes.values()):
        process.node.has_crashed = process.node.is_leaving = True


def close_nodes(*, reads: bool = True, suspects: Suspects = NOBODY) -> None:
    """Return the messages that this process still holds and end its leases; see ``Node.close``."""
    for process in list(_processes.values()):
        process.node.close(reads=reads, suspects=suspects)
