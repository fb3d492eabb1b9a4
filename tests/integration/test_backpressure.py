"""Full queues, as callers, operators and watchers see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from celery import group

import taskapp
from taskapp.engine.queue_limits import QueueLimits
from taskapp.errors import InvalidSetting, SubmitInterrupted
from taskapp.errors.publishing import QueueFull
from tests.integration import shop
from tests.integration.test_exporter import Exporter
from tests.support import Process, RedisServer, clean_environment, eventually, run_python

StartWorker = Callable[..., Process]


@pytest.fixture
def limited(app: Any) -> Iterator[QueueLimits]:
    """The limits of queues; at most three tasks may wait in ``default``."""
    with app.engine() as engine:
        limits = QueueLimits(engine.link, engine.prefix)
        limits.set("default", 3)
        yield limits


def waits_for_room(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with app.connection_for_write() as connection:
        monkeypatch.setattr(connection.default_channel.process.producer, "waits_for_room", True)


def test_every_way_of_submitting_is_refused(app: Any, limited: QueueLimits) -> None:
    accepted = [shop.greet.delay("a"), shop.greet.apply_async(("b",), countdown=60), shop.greet.s("c").delay()]

    async def awaited() -> list[Any]:
        many = [shop.greet.adelay(str(number)) for number in range(5)]
        return await asyncio.gather(*many, return_exceptions=True)

    for submit in (
        lambda: shop.greet.delay("d"),
        lambda: shop.greet.apply_async(("d",), countdown=60),
        lambda: app.send_task(shop.greet.name, ("d",)),
        lambda: (shop.greet.s("d") | shop.greet.si("e")).delay(),
        lambda: group(shop.greet.s("d"), shop.greet.s("e")).delay(),
        lambda: asyncio.run(shop.greet.adelay("d")),
    ):
        with pytest.raises(QueueFull, match="queue 'default' has no room: 3 of at most 3"):
            submit()
    assert all(isinstance(outcome, QueueFull) for outcome in asyncio.run(awaited()))
    assert len({result.id for result in accepted}) == 3


def test_coroutines_get_the_room_that_is_left_and_other_queues_stay_open(limited: QueueLimits) -> None:
    async def submit() -> list[Any]:
        calls = [
            shop.greet.aapply_async((str(number),), queue=queue) for number in range(5) for queue in ("default", "low")
        ]
        return await asyncio.gather(*calls, return_exceptions=True)

    outcomes = asyncio.run(submit())

    assert not any(isinstance(outcome, Exception) for outcome in outcomes[1::2])
    assert sum(isinstance(outcome, QueueFull) for outcome in outcomes[::2]) == 2


def test_many_at_once_report_what_is_queued_and_what_is_not(limited: QueueLimits) -> None:
    limited.set("default", 1_100)

    with pytest.raises(SubmitInterrupted) as caught:
        shop.greet.submit_many((str(number),) for number in range(5_000))

    assert len(caught.value.queued) == 1_000
    assert len(caught.value.not_queued) == 1_000
    assert caught.value.unknown == {}
    assert isinstance(caught.value.__cause__, QueueFull)


def test_a_submit_waits_for_room_and_then_its_task_runs(
    app: Any, limited: QueueLimits, worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_for_room(app, monkeypatch)
    results = [shop.greet.delay(name) for name in "abc"]

    async def many() -> list[Any]:
        calls = [asyncio.create_task(shop.greet.adelay(str(number))) for number in range(20)]
        elsewhere = [await shop.greet.aapply_async((str(number),), queue="low") for number in range(5)]
        assert not any(call.done() for call in calls)
        limited.set("default", 24)
        return elsewhere + list(await asyncio.gather(*calls))

    waiting = Thread(target=lambda: results.append(shop.greet.delay("d")))
    waiting.start()
    results += asyncio.run(many())
    waiting.join(20)
    worker(TASKAPP_INCLUDE="tests.integration.shop")

    names = [*"abcd", *map(str, range(5)), *map(str, range(20))]
    assert sorted(result.get(timeout=20) for result in results) == sorted(f"hello {name}" for name in names)


def test_what_follows_a_run_is_queued_although_the_queue_is_full(limited: QueueLimits, worker: StartWorker) -> None:
    limited.set("default", 1)
    result = (shop.greet.s("a") | group(shop.greet.s(), shop.greet.s(), shop.greet.s())).delay()

    worker(TASKAPP_INCLUDE="tests.integration.shop")

    assert result.get(timeout=20) == ["hello hello a"] * 3


def test_the_command_shows_sets_and_clears_limits(app: Any, redis_server: RedisServer, tmp_path: Path) -> None:
    shop.greet.delay("a")
    env = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path), TASKAPP_QUEUE_LIMITS="default=5"
    )

    def taskapp(*arguments: str) -> tuple[int, str]:
        done = run_python("-m", "taskapp", "limits", *arguments, env=env)
        return done.returncode, done.stdout + done.stderr

    assert json.loads(taskapp("list", "--json")[1]) == {
        "queue": "default", "limit": 5, "waiting": 1, "from": "TASKAPP_QUEUE_LIMITS",
    }  # fmt: skip
    assert taskapp("set", "low", "1000") == (0, "low: at most 1,000 tasks may wait\n")
    assert taskapp("set", "default", "0") == (0, "default: any number of tasks may wait\n")
    assert [line.split() for line in taskapp("list")[1].splitlines()] == [
        ["queue", "limit", "waiting", "from"], ["default", "none", "1", "set"], ["low", "1,000", "0", "set"],
    ]  # fmt: skip
    assert taskapp("clear", "default") == (0, "default: at most 5 tasks may wait, as TASKAPP_QUEUE_LIMITS says\n")
    assert taskapp("clear", "default") == (
        1,
        "Error: no limit is set for 'default'; see taskapp limits list\n",
    )
    assert taskapp("clear", "low") == (0, "low: no limit\n")
    code, text = taskapp("set", "lwo", "3")
    assert code == 1
    assert text.startswith("Error: no queue named 'lwo'; did you mean 'low'?")


def test_the_exporter_shows_limits(app: Any, limited: QueueLimits, redis_server: RedisServer, tmp_path: Path) -> None:
    exporter = Exporter(tmp_path, redis_server.url, TASKAPP_QUEUE_LIMITS="default=5,low=7,high=9")
    try:
        limited.set("high", 0)
        eventually(lambda: exporter.value("taskapp_queue_limit", queue="low") == 7)
        assert exporter.value("taskapp_queue_limit", queue="default") == 3
        assert exporter.value("taskapp_queue_limit", queue="high") is None
        assert exporter.value("taskapp_queue_limit", queue="critical") is None
    finally:
        exporter.close()


@pytest.mark.parametrize(
    ("url", "limits", "problem"),
    [
        ("amqp://localhost", "default=5", "it needs Redis as the broker; unset it"),
        ("memory://", "default=5", "it needs Redis as the broker; unset it"),
        (
            "redis://localhost",
            "lwo=5",
            "no queue named 'lwo'; did you mean 'low'? (queues: default, low)",
        ),
    ],
)
def test_a_limit_without_effect_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str, limits: str, problem: str
) -> None:
    monkeypatch.setenv("TASKAPP_BROKER_URL", url)
    monkeypatch.setenv("TASKAPP_QUEUE_LIMITS", limits)
    monkeypatch.setenv("TASKAPP_QUEUES", "default,low")

    with pytest.raises(InvalidSetting) as refusal:
        _ = taskapp.Celery("shop").conf.broker_url

    assert str(refusal.value) == f"setting TASKAPP_QUEUE_LIMITS cannot be {limits!r}: {problem}"
