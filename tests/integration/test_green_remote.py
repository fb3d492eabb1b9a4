"""Remote control of a node on gevent, whose connection for it breaks alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from celery import Celery

from tests.support import Process, RedisServer, eventually


def answers(app: Celery) -> int:
    return len(app.control.ping(timeout=1.0))


@pytest.mark.quick("default")
@pytest.mark.parametrize("pool", ["default", "gevent"])
def test_a_node_answers_again_after_its_connection_for_remote_control_was_reset(
    worker: Callable[..., Process], app: Celery, redis_server: RedisServer, pool: str
) -> None:
    worker(*(() if pool == "default" else ("-P", pool)))
    eventually(lambda: answers(app) == 1, 20)

    for _ in range(2):
        assert redis_server.client.client_kill_filter(_type="pubsub") > 0
        eventually(lambda: answers(app) == 1, 20)


def test_a_node_on_gevent_cannot_be_shrunk_until_it_blocks(worker: Callable[..., Process], app: Celery) -> None:
    worker("-P", "gevent", "-c", "3")
    eventually(lambda: answers(app) == 1, 20)

    for n in (3, 100, 2):
        (answer,) = app.control.pool_shrink(n, reply=True, timeout=5.0, limit=1)
        (said,) = answer.values()
        assert list(said) == (["ok"] if n == 2 else ["error"]), said

    assert app.signature("taskapp.add", (2, 3)).apply_async().get(timeout=20) == 5
