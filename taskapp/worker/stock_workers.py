"""Warns of workers of stock Celery on this node's queues: they take taskapp's messages and cannot read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.background import start_thread
from taskapp.errors import TaskappError
from taskapp.migrate.stock_celery import takers_in
from taskapp.results.chords import FINISH_CHORD
from taskapp.transport.transport import is_over_redis

logger = get_logger(__name__)

CLIENTS_MOST = 2_000
"""With more clients than this, the server is not asked for a list of them."""
ANSWER_SECONDS = 2.0


def look_for_stock_workers(sender: Any, **_: Any) -> None:
    """Look for such workers once, off the loop, when the node ``sender`` is ready."""
    if is_over_redis(sender.app.conf.broker_url):
        start_thread(_look, sender.app, set(sender.app.amqp.queues.consume_from), name="stock-workers")


def _look(app: Any, queues: set[str]) -> None:
    try:
        if not _may_be_there(app):
            return
        for name, taken in stock_workers(app).items():
            if shared := sorted(queues & taken):
                logger.error(
                    "the worker %s of stock Celery takes messages from %s: it cannot read those of taskapp and loses "
                    "them; stop it, or give one of the two a prefix (TASKAPP_KEY_PREFIX)", name, ", ".join(shared),
                    extra={"action": "stock_worker"},
                )  # fmt: skip
    except (RedisError, OSError, OperationalError, TaskappError) as error:
        logger.debug("could not look for workers of stock Celery: %s", error)


def _may_be_there(app: Any) -> bool:
    """Return whether a client waits for messages as stock workers do; those that ask nodes look the same."""
    with app.engine() as engine:
        link = engine.link
        about = dict(line.split(b":", 1) for line in link.command("INFO", "clients").split() if b":" in line)
        if int(about.get(b"connected_clients", 0)) > CLIENTS_MOST:
            return False
        return bool(takers_in(link.command("CLIENT", "LIST").decode(errors="replace")))


def stock_workers(app: Any) -> dict[str, set[str]]:
    """Return the workers of stock Celery that answer, and the queues from which each takes messages."""
    with app.connection_for_write() as connection:  # closed at once: it waits like a worker
        inspect = app.control.inspect(timeout=ANSWER_SECONDS, connection=connection)
        registered: dict[str, Iterable[str]] = inspect.registered() or {}
        stock = [name for name, types in registered.items() if FINISH_CHORD not in types]
        if not stock:
            return {}
        asked = app.control.inspect(stock, timeout=ANSWER_SECONDS, connection=connection)
        found: dict[str, list[dict[str, Any]]] = asked.active_queues() or {}
    return {name: {queue["name"] for queue in queues} for name, queues in found.items() if name in stock}
