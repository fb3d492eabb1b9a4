"""What must not be left in Redis when all tasks have ended, and what must be: a message too many, a result too few."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import redis

from taskapp.queues import DEFAULT_QUEUES
from taskapp.redis.keys import Keys

BATCH = 1000


def messages_left(client: redis.Redis) -> dict[str, int]:
    """Return how many messages are still ready, delayed, parked or leased, by key."""
    keys = Keys()
    counted = {key: int(client.llen(key)) for queue in DEFAULT_QUEUES for key in keys.waiting(queue)}
    counted |= {key: int(client.zcard(key)) for key in client.scan_iter(keys("delayed", "*"))}
    counted |= {key: int(client.hlen(key)) for key in client.scan_iter(keys("leased", "*"))}
    counted |= {key: int(client.llen(key)) for key in client.scan_iter(keys("parked_messages", "*", "*"))}
    return {key: number for key, number in counted.items() if number}


def without_result(client: redis.Redis, task_ids: Iterable[str]) -> set[str]:
    """Return those of ``task_ids`` that have no result."""
    missing: set[str] = set()
    remaining = iter(task_ids)
    while batch := list(islice(remaining, BATCH)):
        answers = client.mget([f"celery-task-meta-{task_id}" for task_id in batch])
        missing |= {task_id for task_id, answer in zip(batch, answers, strict=True) if answer is None}
    return missing
