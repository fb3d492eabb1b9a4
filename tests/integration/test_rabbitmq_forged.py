"""Forged messages on RabbitMQ: none ends a node or keeps one of its slots, whatever its headers and properties hold."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest

from taskapp.engine.headers import CHECKS, FOLLOW_UPS
from tests.integration import rabbitmq
from tests.integration.test_rabbitmq import Site
from tests.support import RedisServer, eventually

pytestmark = pytest.mark.skipif(not rabbitmq.is_installed(), reason="rabbitmq-server is not installed")

VALUES = (None, True, -1, 2**40, 1e300, "", "x", [], {}, ["x"], {"a": 1}, "9" * 300, [[1]], b"\xff\xfe")
HEADERS = (
    *CHECKS,
    *FOLLOW_UPS,
    "lease",
    "properties",
    "delivery_info",
    "args",
    "redelivered",
    "is_eager",
    "traceparent",
)
PROPERTIES = ("reply_to", "correlation_id", "message_id", "app_id", "type", "content_encoding", "content_type")
BODIES = (
    b"", b"null", b"[1]", b"[[],{},3]", b"[[],[],{}]", b'{"task": 3}', b"\xff", b"[" * 5_000, b'[[],{},{"chain":[3]}]',
)  # fmt: skip
JSON = {"content_type": "application/json", "content_encoding": "utf-8"}
BODY = b"[[1, 2], {}, {}]"


@pytest.fixture
def site(tmp_path: Path, rabbitmq_url: str, redis_server: RedisServer) -> Iterator[Site]:
    site = Site(tmp_path, rabbitmq_url, redis_server.url)
    yield site
    site.close()


def headers(**other: Any) -> dict[str, Any]:
    return {"lang": "py", "task": "tests.integration.follow_ups.add", "id": str(uuid.uuid4()), "retries": 0, **other}


def forge(url: str) -> int:
    """Publish forged messages; return how many RabbitMQ has taken."""
    taken = 0
    made: list[tuple[bytes, str, dict[str, Any]]] = [
        (BODY, "", {"headers": headers(**{name: value})}) for name in HEADERS for value in VALUES
    ]
    made += [(body, "", {"headers": headers()}) for body in BODIES]
    for name in PROPERTIES:
        made += [(body, "", {"headers": headers(), name: b"\xff\xfe"}) for body in (BODY, b"")]
    made.append((BODY, "forged", {"headers": headers(), "routing_key": b"\xff\xfe"}))
    with kombu.Connection(url) as connection:
        producer = connection.Producer()
        queue = kombu.Queue("default", kombu.Exchange("forged", type="fanout"), queue_arguments={"x-max-priority": 9})
        queue(connection.default_channel).declare()
        for body, exchange, options in made:
            try:
                producer.publish(body, exchange=exchange, **{"routing_key": "default", **JSON, **options})
                taken += 1
            except (ValueError, TypeError, OverflowError, kombu.exceptions.KombuError, AttributeError):
                continue  # AMQP has no such value
        producer.publish({}, exchange="celery.pidbox", routing_key=b"\xff\xfe")
    return taken


@pytest.mark.quick("()")
@pytest.mark.parametrize("options", [(), ("-P", "prefork"), ("-P", "threads"), ("-P", "solo")], ids=str)
def test_no_forged_message_ends_a_node_or_keeps_a_slot(site: Site, options: tuple[str, ...]) -> None:
    node = site.worker(*options)

    assert forge(site._broker_url) > 400

    def is_empty() -> bool:
        with kombu.Connection(site._broker_url) as connection:
            queue = kombu.Queue("default", channel=connection.default_channel)
            return bool(queue.queue_declare(passive=True).message_count == 0)

    eventually(is_empty, 60.0, 0.5)
    assert site.ask("print(add.delay(1, 2).get(timeout=30), add_on_loop.delay(1, 2).get(timeout=30))") == "3 3"
    assert node.returncode is None
    assert "Unrecoverable" not in node.output()
