"""Stock Celery's data in Redis, and how to detect that its workers still run.

It knows kombu's key names and JSON without importing kombu. Every function takes a plain
``redis.Redis`` that returns bytes, connected to the broker's database; ``key_prefix`` is
``TASKAPP_KEY_PREFIX``, kombu's ``global_keyprefix``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from redis import Redis
from redis.exceptions import ResponseError

from taskapp.queues import HIGHEST_PRIORITY, LOWEST_PRIORITY, SEPARATOR

UNACKED = "unacked"
"""Hash: delivery tag -> JSON of message, exchange and routing key, for all messages that workers have taken."""
UNACKED_INDEX = "unacked_index"
"""Sorted set: delivery tag -> when it was delivered, Unix seconds."""
BINDINGS = "_kombu.binding."
"""Prefix of an exchange's key: the set of its routing keys, patterns and queues."""
GUIDE_SEPARATOR = ":"
"""The ``sep`` that Celery's guide to priorities recommends instead of ``SEPARATOR``."""
RECENT_SECONDS = 60.0
"""Age up to which a delivery is a sign of life if the server does not list its clients."""
OWN_CLIENTS = "taskapp"
"""Prefix of the names of taskapp's own connections."""


@dataclass(frozen=True)
class HeldMessage:
    """A message as kombu keeps it for a worker."""

    message: dict[str, Any]
    exchange: str
    routing_key: str

    @property
    def priority(self) -> int:
        """Its priority, clamped to 0 to 9 as kombu does; 0 if it has none."""
        try:
            return max(LOWEST_PRIORITY, min(HIGHEST_PRIORITY, int(self.message["properties"]["priority"])))
        except (KeyError, TypeError, ValueError, OverflowError):
            return LOWEST_PRIORITY

    def to_json(self) -> bytes:
        """Return the message as stored in a ready list, marked as redelivered."""
        headers = {**self.message["headers"], "redelivered": True}
        properties = self.message["properties"]
        sent_to = {"exchange": self.exchange, "routing_key": self.routing_key}
        delivery_info = {**sent_to, **(properties.get("delivery_info") or {}), "redelivered": True}
        properties = {**properties, "delivery_info": delivery_info}
        return json.dumps({**self.message, "headers": headers, "properties": properties}).encode()


class Binding(NamedTuple):
    """A queue bound to an exchange."""

    routing_key: str
    pattern: str
    """Regular expression for a topic exchange; else empty."""
    queue: str

    def takes(self, routing_key: str) -> bool:
        """Return whether the queue gets messages with ``routing_key``."""
        try:
            return self.routing_key == routing_key or bool(self.pattern and re.match(self.pattern, routing_key))
        except re.error:
            return False


def read_held(value: bytes) -> HeldMessage:
    """Return the message in one value of ``unacked``.

    Raises:
        ValueError: It is not a message that a worker could read.
    """
    try:
        held = HeldMessage(*json.loads(value))
    except (TypeError, RecursionError) as error:
        raise ValueError("not a list of message, exchange and routing key") from error
    if not (is_message(held.message) and isinstance(held.exchange, str) and isinstance(held.routing_key, str)):
        raise ValueError("not a kombu message")
    return held


def read_waiting(entry: bytes) -> dict[str, Any] | None:
    """Return the kombu message in one entry of a ready list; ``None`` if it is taskapp's, or not a message."""
    try:
        message = json.loads(entry)
    except (ValueError, RecursionError):
        return None
    return message if is_message(message) else None


def is_message(value: object) -> bool:
    """Return whether ``value`` has the parts of a message that a worker needs."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("body"), str)
        and isinstance(value.get("headers"), dict)
        and isinstance(value.get("properties"), dict)
        and isinstance(value["properties"].get("delivery_tag"), str)
        and isinstance(value["properties"].get("delivery_info") or {}, dict)
    )


def at_lowest_priority(message: bytes) -> bytes:
    """Return kombu's ``message`` with priority 0 in its properties, which a retry is sent with."""
    parts = json.loads(message)
    return json.dumps({**parts, "properties": {**parts["properties"], "priority": LOWEST_PRIORITY}}).encode()


def held_messages(client: Redis, key_prefix: str) -> int:
    """Return the number of messages recorded as taken by workers on kombu's own transport."""
    return client.hlen(key_prefix + UNACKED)


def bindings(client: Redis, key_prefix: str, exchange: str) -> list[Binding]:
    """Return the bindings of ``exchange`` in a stable order."""
    members = cast("set[bytes]", client.smembers(f"{key_prefix}{BINDINGS}{exchange}"))
    found = []
    for member in sorted(member.decode(errors="replace") for member in members):
        parts = member.split(SEPARATOR if SEPARATOR in member else GUIDE_SEPARATOR)
        if len(parts) == 3:
            found.append(Binding(*parts))
    return found


def bound_queues(client: Redis, key_prefix: str) -> list[str]:
    """Return the queues that are bound to any exchange, sorted; without those of remote control and events."""
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", key_prefix) + f"{BINDINGS}*"
    exchanges = [key.decode(errors="replace").removeprefix(key_prefix + BINDINGS) for key in client.scan_iter(pattern)]
    of_tasks = [name for name in exchanges if not name.endswith("pidbox") and name != "celeryev"]
    return sorted({binding.queue for name in of_tasks for binding in bindings(client, key_prefix, name)})


def signs_of_life(client: Redis, key_prefix: str, answering: Callable[[], Iterable[str]]) -> list[str]:
    """Return signs, as phrases, that stock workers still run; empty if there are none.

    Args:
        client: Client of the broker's database.
        key_prefix: See the module.
        answering: Pings the workers and returns the names of stock ones. A busy one may not answer, hence other signs.
    """
    # Before the workers are pinged: a client that waits for their replies looks like a worker, too.
    signs = _signs_in_redis(client, key_prefix)
    return [f"{name!r} answers" for name in answering()] + signs


def _signs_in_redis(client: Redis, key_prefix: str) -> list[str]:
    try:
        # A worker waits for messages with BRPOP, on a connection that does nothing else.
        return [f"the client at {address} takes messages with BRPOP" for address in _takers(client)]
    except ResponseError:
        newest = cast("list[tuple[bytes, float]]", client.zrange(key_prefix + UNACKED_INDEX, -1, -1, withscores=True))
        age_seconds = time.time() - newest[0][1] if newest else RECENT_SECONDS
        return [f"a message was delivered {max(age_seconds, 0):.0f} s ago"] if age_seconds < RECENT_SECONDS else []


def _takers(client: Redis) -> list[str]:
    database = str(client.connection_pool.connection_kwargs.get("db") or 0)
    return [
        each["addr"]
        for each in client.client_list()
        if each["cmd"] == "brpop" and each["db"] == database and not each["name"].startswith(OWN_CLIENTS)
    ]
