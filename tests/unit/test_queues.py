from __future__ import annotations

from typing import Any

import kombu.transport.redis
import pytest

import taskapp.tasks
from taskapp.queues import DEFAULT_QUEUE, DEFAULT_QUEUES, PRIORITIES, TASK_ROUTES, queue_for
from taskapp.redis.keys import KEYS, Keys


def test_an_exact_route_wins_over_a_pattern() -> None:
    routes = {"shop.*": "low", "shop.pay": "critical"}

    assert queue_for("shop.pay", routes) == "critical"
    assert queue_for("shop.list", routes) == "low"
    assert queue_for("other.list", routes) == DEFAULT_QUEUE


def test_every_task_type_that_ships_has_a_route_to_a_queue_there_is() -> None:
    assert {getattr(taskapp.tasks, name).name for name in taskapp.tasks.__all__} == set(TASK_ROUTES)
    assert set(TASK_ROUTES.values()) <= set(DEFAULT_QUEUES)


@pytest.mark.parametrize("name", [name for name, pattern in KEYS.items() if "{" in pattern])
def test_keys_of_one_queue_share_a_hash_tag(name: str) -> None:
    assert Keys("shop:")(name, "default", "7").startswith("shop:taskapp:{shop:default}:")


@pytest.mark.parametrize("priority", PRIORITIES)
def test_messages_are_adopted_from_the_lists_that_kombu_names(priority: int) -> None:
    channel: Any = object.__new__(kombu.transport.redis.Channel)
    channel.priority_steps = PRIORITIES

    assert Keys("shop:").kombu("default", priority) == "shop:" + channel._q_for_pri("default", priority)


def test_no_stock_worker_knows_a_ready_list() -> None:
    lists = Keys("shop:").waiting("default")
    ours, kombus = lists[: len(PRIORITIES)], lists[len(PRIORITIES) :]

    assert ours == [f"shop:taskapp:{{shop:default}}:ready:{priority}" for priority in reversed(PRIORITIES)]
    assert kombus == [Keys("shop:").kombu("default", priority) for priority in reversed(PRIORITIES)]
