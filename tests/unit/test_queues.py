from __future__ import annotations

import taskapp.tasks
from taskapp.queues import DEFAULT_QUEUE, DEFAULT_QUEUES, TASK_ROUTES, queue_for, ready_key


def test_an_exact_route_wins_over_a_pattern() -> None:
    routes = {"shop.*": "low", "shop.pay": "critical"}

    assert queue_for("shop.pay", routes) == "critical"
    assert queue_for("shop.list", routes) == "low"
    assert queue_for("other.list", routes) == DEFAULT_QUEUE


def test_every_task_type_that_ships_has_a_route_to_a_queue_there_is() -> None:
    assert {getattr(taskapp.tasks, name).name for name in taskapp.tasks.__all__} == set(TASK_ROUTES)
    assert set(TASK_ROUTES.values()) <= set(DEFAULT_QUEUES)


def test_priority_zero_is_the_plain_list() -> None:
    assert ready_key("default", 0) == "default"
    assert ready_key("default", 9) == "default\x06\x169"
