"""What one process holds of the engine: for each server one producer and, if it consumes, one node.

They belong to the process, not to a channel or connection, which kombu and Celery make anew whenever
they like; and not to a forked child, which begins with none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from redis.connection import Connection

from taskapp.engine import batch, settlement
from taskapp.engine.node import Node
from taskapp.engine.options import NodeProfile, Options
from taskapp.engine.producer import Message, Producer
from taskapp.engine.suspects import NOBODY, Suspects
from taskapp.redis.link import Link

role = NodeProfile()
"""What this process can do; its worker says so before it consumes."""


class Runtime:
    """What one process holds for one server: a producer and, if it consumes, a node."""

    def __init__(self, connect: Callable[[], Connection], options: Options, deadline_seconds: float) -> None:
        self.connect = connect
        self.producer = Producer(Link(connect), options, deadline_seconds)
        self.node = Node(connect, options, role)
        self.is_inherited = False
        """Whether it belongs to the parent: this process was forked from it since."""

    def post(self, message: Message, on_pushed: Callable[[], Any] | None = None) -> None:
        """Send ``message`` on its way: with the end of a run, with others that are collected, or at once.

        Every task this process sends passes here. ``on_pushed`` is called once it is queued, or left to the end
        of a run; errors are those of ``Producer.push``.
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
    """Return what this process holds for ``server``, made at the first call.

    Always the same to all threads: a second producer would know nothing of what the first is in doubt about.
    """
    # In one step. A lock could be held by another thread at the moment of a fork.
    return _processes.get(server) or _processes.setdefault(server, make())


def _leave_to_parent() -> None:
    for process in _processes.values():
        process.is_inherited = True
    _processes.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def count(name: str) -> None:
    """Count what is not kept, such as an ``expired`` task."""
    for process in _processes.values():
        if process.node.epoch:
            process.node.count(name)


def is_in_touch() -> bool:
    """Say whether every server this process consumes from is there, as far as is known."""
    nodes = [process.node for process in list(_processes.values()) if process.node.epoch]
    return all(node.pipe.is_open and node.heartbeat.is_answered for node in nodes)


def holds_messages() -> bool:
    """Say whether this process holds messages that are not settled."""
    return any(process.node.held for process in list(_processes.values()))


def leave() -> None:
    """Let nothing be given back any more for what becomes of its run: all is, by ``close_nodes``, as it is."""
    for process in list(_processes.values()):
        process.node.is_leaving = True


def crash() -> None:
    """Let what this process holds count as held by one that died: its leases end by themselves."""
    for process in list(_processes.values()):
        process.node.has_crashed = process.node.is_leaving = True


def close_nodes(*, reads: bool = True, suspects: Suspects = NOBODY) -> None:
    """Give back what this process still holds and end its leases; see ``Node.close``."""
    for process in list(_processes.values()):
        process.node.close(reads=reads, suspects=suspects)
