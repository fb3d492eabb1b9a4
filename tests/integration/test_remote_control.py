"""How long a question to all nodes waits for answers: until everybody who received it has answered."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from celery import Celery

from tests.support import Process, RedisServer, eventually

FOREVER_SECONDS = 600.0
"""So long that a test which waits for it exceeds its own time limit."""
TOPIC = "/0.celery.pidbox"

pytestmark = pytest.mark.timeout(60)


def test_a_question_that_no_node_receives_has_no_answer_at_once(app: Celery) -> None:
    assert app.control.inspect(timeout=FOREVER_SECONDS).ping() is None
    assert app.control.ping(destination=["nosuch@host"], timeout=FOREVER_SECONDS) == []


@pytest.mark.parametrize("pool", ["default", "gevent"])
def test_a_question_ends_with_the_last_answer(app: Celery, worker: Callable[..., Process], pool: str) -> None:
    for name in ("one", "two"):
        worker("-c", "1", *(() if pool == "default" else ("-P", pool)), name=name)
    answered: list[object] = []
    eventually(lambda: len(app.control.ping(timeout=FOREVER_SECONDS)) == 2)

    named = app.control.inspect(timeout=FOREVER_SECONDS, callback=answered.append).stats()

    assert sorted(name.partition("@")[0] for name in named) == ["one", "two"]
    assert len(answered) == 2
    assert len(app.control.ping(destination=[*named][:1], timeout=FOREVER_SECONDS)) == 1


def test_a_question_waits_for_those_who_have_not_answered_until_its_timeout(
    app: Celery, worker: Callable[..., Process], redis_server: RedisServer
) -> None:
    worker("-c", "1")
    eventually(lambda: len(app.control.ping(timeout=FOREVER_SECONDS)) == 1)
    silent = redis_server.client.pubsub()
    silent.psubscribe(TOPIC)
    silent.get_message(timeout=5)

    began = time.monotonic()
    answers = app.control.ping(timeout=0.5)

    assert len(answers) == 1
    assert time.monotonic() - began >= 0.5
    assert silent.get_message(timeout=5)["type"] == "pmessage"
    silent.close()
