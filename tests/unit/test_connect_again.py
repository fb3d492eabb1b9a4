"""A node that reconnects: how often it tries, and what its lease makes of it."""

from __future__ import annotations

import pytest
from kombu.exceptions import OperationalError
from redis.connection import Connection as RedisConnection

from taskapp.engine import runtime
from taskapp.engine.options import NodeProfile, Options
from taskapp.transport.transport import Connection
from tests.support import free_port


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> runtime.Node:
    """Return this process's node, whose loop last turned long ago."""
    monkeypatch.setattr(runtime, "_processes", {})
    monkeypatch.setattr(runtime, "role", NodeProfile(is_in_task=lambda: False))
    port = free_port()
    made = runtime.runtime_for("here", lambda: runtime.Runtime(lambda: RedisConnection(port=port), Options(), 1.0))
    made.node.epoch, made.node.turned_at = "e", 0.0
    return made.node


def test_a_node_tries_redis_each_second_and_counts_as_alive_meanwhile(node: runtime.Node) -> None:
    connection = Connection(f"redis://127.0.0.1:{free_port()}/0")
    pauses: list[float] = []
    alive: list[bool] = []

    def failed(_: Exception, pause: float) -> None:
        pauses.append(pause)

    def each_second() -> None:
        alive.append(not node.stands_still())
        node.turned_at = 0.0

    with pytest.raises(OperationalError):
        connection.ensure_connection(failed, 2, callback=each_second)
    assert pauses == [1, 1]
    assert len(alive) >= 3
    assert all(alive)


def test_a_node_that_hangs_while_it_connects_does_not_count_as_alive(node: runtime.Node) -> None:
    stuck: list[bool] = []

    def hang(*_: object) -> None:
        node.turned_at -= 60  # a minute passes
        stuck.append(node.stands_still())

    with pytest.raises(OperationalError):
        Connection(f"redis://127.0.0.1:{free_port()}/0").ensure_connection(hang, 1)
    assert stuck == [True]


def test_intervals_of_the_caller_hold(node: runtime.Node) -> None:
    pauses: list[float] = []
    connection = Connection(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(OperationalError):
        connection.ensure_connection(lambda _, pause: pauses.append(pause), 2, interval_start=0, interval_max=0)
    assert pauses == [0, 0]
