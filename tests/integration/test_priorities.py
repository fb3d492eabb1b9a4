"""Priorities a task is submitted with: an integer from 0 to 9, or the submit is refused on every path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from taskapp.errors import SubmitInterrupted
from taskapp.errors.tasks import BadOption
from taskapp.redis.keys import Keys
from tests.integration import shop
from tests.support import RedisServer, clean_environment, run_python

BAD = ["high", "5", -3, 10, 11, 255, 5.0, True, False, [], 10**30]
WAYS: dict[str, Callable[[Any], Any]] = {
    "apply_async": lambda priority: shop.greet.apply_async(("Ada",), priority=priority),
    "aapply_async": lambda priority: asyncio.run(shop.greet.aapply_async(("Ada",), priority=priority)),
    "delayed": lambda priority: shop.greet.apply_async(("Ada",), priority=priority, countdown=5),
    "send_task": lambda priority: shop.greet.app.send_task(shop.greet.name, ("Ada",), priority=priority),
    "another app's": lambda priority: shop.greet.app.send_task("not.known.here", (), queue="low", priority=priority),
    "kombu": lambda priority: shop.greet.apply_async(
        ("Ada",), exchange="default", routing_key="default", priority=priority
    ),
    "submit_many": lambda priority: shop.greet.submit_many([("Ada",)], priority=priority),
    "asubmit_many": lambda priority: asyncio.run(shop.greet.asubmit_many([("Ada",)], priority=priority)),
    "set": lambda priority: shop.greet.s("Ada").set(priority=priority).delay(),
    "signature": lambda priority: shop.greet.signature(("Ada",), priority=priority).delay(),
    "signature's options": lambda priority: shop.greet.signature(("Ada",), options={"priority": priority}).delay(),
    "signature's submit": lambda priority: shop.greet.s("Ada").apply_async(priority=priority),
    "a later step": lambda priority: chain(shop.greet.s("Ada"), shop.greet.si("Bob").set(priority=priority)).delay(),
    "chain": lambda priority: chain(shop.greet.s("Ada"), shop.greet.si("Bob")).apply_async(priority=priority),
    "group": lambda priority: group(shop.greet.s("Ada"), shop.greet.s("Bob")).apply_async(priority=priority),
    "chord": lambda priority: chord([shop.greet.s("Ada").set(priority=priority)])(shop.greet.si("Bob")),
    "apply": lambda priority: shop.greet.apply(("Ada",), priority=priority),
}


class Level(IntEnum):
    URGENT = 9


def refusal(submit: Callable[[], Any]) -> BadOption:
    with pytest.raises((BadOption, SubmitInterrupted)) as caught:
        submit()
    error = caught.value.__cause__ if isinstance(caught.value, SubmitInterrupted) else caught.value
    assert isinstance(error, BadOption)
    return error


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_priority_is_refused(app: Celery, redis_server: RedisServer, way: str) -> None:
    for bad in BAD:
        error = refusal(lambda bad=bad: WAYS[way](bad))
        assert f"priority is {bad!r}; use an integer from 0 to 9, where 9 runs first" in str(error)
    assert redis_server.client.keys("*default*") == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("priority", [None, 0, 9, Level.URGENT])
def test_what_is_one_is_taken(app: Celery, redis_server: RedisServer, way: str, priority: int | None) -> None:
    WAYS[way](priority)


def test_it_is_what_was_asked_for(app: Celery, redis_server: RedisServer) -> None:
    for priority in (0, 5, Level.URGENT):
        shop.greet.apply_async(("Ada",), priority=priority)

    assert {priority: redis_server.client.llen(Keys().ready("default", priority)) for priority in range(10)} == {
        **dict.fromkeys(range(10), 0), 0: 1, 5: 1, 9: 1,
    }  # fmt: skip


@pytest.fixture
def by_default(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the task type's own priority be none."""
    task = app.tasks[shop.greet.name]
    with monkeypatch.context() as patch:
        patch.setattr(task, "priority", "high")
        patch.setattr(task, "_exec_options", None)
        app.submitter._sender._usual.clear()
        yield
    app.submitter._sender._usual.clear()


@pytest.mark.parametrize(
    "submit",
    [
        lambda: shop.greet.delay("Ada"),
        lambda: group(shop.greet.s("Ada"), shop.greet.s("Bob")).delay(),
        lambda: shop.greet.submit_many([("Ada",)]),
        lambda: shop.greet.apply_async(("Ada",), exchange="default", routing_key="default"),
    ],
    ids=["delay", "group", "submit_many", "kombu"],
)
def test_the_default_of_a_type_is_checked(by_default: None, submit: Callable[[], Any]) -> None:
    assert "priority is 'high'" in str(refusal(submit))


def test_the_default_of_the_configuration_is_checked(redis_server: RedisServer) -> None:
    code = """
from taskapp.celery import app
app.conf.task_default_priority = 11
@app.task
def pay(): pass
for submit in pay.delay, pay.s().delay:
    try:
        submit()
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = run_python("-c", code, env=clean_environment(TASKAPP_BROKER_URL=redis_server.url))

    assert done.stdout.count("BadOption task 'taskapp.pay' cannot be submitted: priority is 11") == 2
