"""Dramatiq. Acknowledged after the run, results in Redis."""

from __future__ import annotations

import time
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.message import Message
from dramatiq.results import ResultMissing, Results
from dramatiq.results.backends import RedisBackend

from benchmarks import tasks
from benchmarks.adaptors import STORE_URL

backend = RedisBackend(url=STORE_URL)
broker = RedisBroker(url=STORE_URL)
broker.add_middleware(Results(backend=backend, store_results=True))
dramatiq.set_broker(broker)
registered = {
    name: dramatiq.actor(getattr(tasks, name), actor_name=name, broker=broker) for name in ("noop", "stamp", "nap")
}


class Client:
    """Submits with ``send()``; there is no way to submit many at once."""

    async def open(self) -> None:
        broker.client.ping()

    async def close(self) -> None:
        broker.close()

    async def submit(self, name: str, *arguments: Any) -> Message:
        return registered[name].send(*arguments)

    async def submit_at(self, due_at: float, name: str, *arguments: Any) -> Message:
        return registered[name].send_with_options(args=arguments, delay=(due_at - time.time()) * 1_000)

    async def is_done(self, handle: Message) -> bool:
        try:
            handle.get_result(backend=backend)
        except ResultMissing:
            return False
        return True

    async def result(self, handle: Message) -> Any:
        return handle.get_result(backend=backend, block=True, timeout=60_000)
