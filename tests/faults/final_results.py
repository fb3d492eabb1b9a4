"""Counts how often a final result was written: each write is also published."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import redis
from celery import states

CHANNELS = "celery-task-meta-*"


class FinalResults:
    """What was written while it listened, by task id."""

    def __init__(self, client: redis.Redis) -> None:
        self.counts: Counter[str] = Counter()
        self.values: defaultdict[str, list[Any]] = defaultdict(list)
        """The results of each task in the order they were written."""
        self._subscription = client.pubsub(ignore_subscribe_messages=True)
        self._subscription.psubscribe(**{CHANNELS: self._take})

    def _take(self, message: dict[str, Any]) -> None:
        meta = json.loads(message["data"])
        if meta["status"] in states.READY_STATES:
            self.counts[meta["task_id"]] += 1
            self.values[meta["task_id"]].append(meta["result"])

    def twice(self, task_ids: Collection[str]) -> set[str]:
        """Return those of ``task_ids`` whose final result was written more than once."""
        return {task_id for task_id in task_ids if self.counts[task_id] > 1}


@contextmanager
def listening(client: redis.Redis) -> Iterator[FinalResults]:
    """Listen while the block runs."""
    listened = FinalResults(client)
    thread = listened._subscription.run_in_thread(sleep_time=0.1, daemon=True)
    try:
        yield listened
    finally:
        thread.stop()
        thread.join()
        listened._subscription.close()


def stored(client: redis.Redis, task_id: str) -> dict[str, Any]:
    """Return what is stored of ``task_id``: state and result; empty if nothing is."""
    return dict(json.loads(client.get(f"celery-task-meta-{task_id}") or b"{}"))
