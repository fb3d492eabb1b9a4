"""What every submit passes through, by ``delay()`` or by name: known task, known queue, size, deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from time import monotonic, sleep
from typing import Any, NamedTuple

from celery import Celery
from celery.app.amqp import AMQP
from celery.exceptions import QueueNotFound
from celery.utils import uuid
from kombu.exceptions import EncodeError, OperationalError
from kombu.utils.json import dumps
from redis.exceptions import RedisError

from taskapp.broker import settlement
from taskapp.broker.bulk import collecting
from taskapp.broker.dead_letters import DeadLetters
from taskapp.broker.delayed import DelayedMessages
from taskapp.broker.transport import Connection, is_over_redis
from taskapp.errors import (
    BrokerUnavailable,
    InvalidPayload,
    NoEngine,
    NotQueued,
    PayloadTooLarge,
    UnknownQueue,
    UnknownTask,
)
from taskapp.queues import TASK_ROUTES
from taskapp.settings import get_settings

OWN_PREFIX = "taskapp."
PAUSE_SECONDS = 0.1


class Engine(NamedTuple):
    """What of the delivery engine people and programs look at."""

    dead_letters: DeadLetters
    delayed: DelayedMessages


class Amqp(AMQP):
    """Celery's AMQP with our connections."""

    Connection = Connection

    def _retry_publish(self, publish: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Send what follows a task: links and the rest of its chain, in the step that finishes it."""
        with settlement.collecting():
            return super()._retry_publish(publish, *args, **kwargs)  # type: ignore[misc]  # missing in the stubs


class Application(Celery):
    """Celery, refusing at the caller what could only fail later; looks for its broker when it needs it."""

    _backend_cache: Any
    _local: threading.local

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Send the task ``name``, as Celery does, after checking what can be checked here.

        Raises:
            UnknownTask: A name under ``taskapp.`` that no task type has.
            UnknownQueue: ``queue`` is none of ``TASKAPP_QUEUES``.
            InvalidPayload: An argument is not JSON.
            PayloadTooLarge: The arguments take more than ``TASKAPP_MAX_PAYLOAD_BYTES``.
            BrokerUnavailable: The broker could not be reached within ``TASKAPP_SUBMIT_DEADLINE_SECONDS``.
            SubmitOutcomeUnknown: It was reached and did not answer; says how to find out.
            BrokerFull: Redis has no memory left.
        """
        if name.startswith(OWN_PREFIX) and name not in TASK_ROUTES and name not in self.tasks:
            raise UnknownTask(name, TASK_ROUTES)
        self._check_size(name, args, kwargs)
        options["task_id"] = options.get("task_id") or uuid()
        deadline_seconds = get_settings().submit_deadline_seconds
        deadline = monotonic() + deadline_seconds
        while True:
            began_at = monotonic()
            try:
                return self._send(name, args, kwargs, *rest, **options)
            except NotQueued as error:
                raise BrokerUnavailable(name, options["task_id"], deadline_seconds, error.reason) from error
            except QueueNotFound as error:
                raise UnknownQueue(str(options.get("queue")), self.amqp.queues) from error
            except (OperationalError, RedisError, OSError) as error:
                # The engine says by errors of its own what became of a push; here none was begun.
                now = monotonic()
                may_try_again = (
                    is_over_redis(self.conf.broker_url) and now + (now - began_at) + PAUSE_SECONDS < deadline
                )
                if not may_try_again:
                    raise BrokerUnavailable(name, options["task_id"], deadline_seconds, error) from error
                sleep(PAUSE_SECONDS)

    def _send(self, name: str, args: Any, kwargs: Any, *rest: Any, **options: Any) -> Any:
        # One producer for this task alone: what ``producer_or_acquire`` gives to others collects.
        with super().producer_or_acquire(options.pop("producer", None)) as producer:
            return super().send_task(name, args, kwargs, *rest, **{**options, "producer": producer})

    @contextmanager
    def producer_or_acquire(self, producer: Any = None) -> Iterator[Any]:  # type: ignore[override]  # a class in Celery
        """Lend a producer, as Celery does; tasks submitted through it are pushed by the thousand.

        Celery's groups submit inside one such block.
        """
        with super().producer_or_acquire(producer) as lent, collecting() if producer is None else nullcontext():
            yield lent

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Lend the dead letters and the delayed messages, over the app's own broker.

        Raises:
            NoEngine: The broker is no Redis.
            BrokerNotFound, OSError, kombu.exceptions.OperationalError, redis.RedisError: It cannot be reached.
        """
        with self.connection_for_write() as connection:
            if not is_over_redis(self.conf.broker_url):
                raise NoEngine(connection.as_uri())
            channel: Any = connection.default_channel
            link, prefix = channel.process.producer.link, channel.global_keyprefix
            yield Engine(DeadLetters(link, prefix), DelayedMessages(link, prefix, tuple(get_settings().queues)))

    def now(self) -> datetime:
        """Return the time in the app's zone; Celery's own way there, for each result, costs twenty times as much."""
        return datetime.now(self.timezone)

    def forget_backend(self) -> None:
        """Let the next use of results open connections anew."""
        self._backend_cache = None
        self._local.__dict__.pop("backend", None)

    def _connection(self, url: str | None, *args: Any, **options: Any) -> Any:
        self._find_broker()
        return super()._connection(url or self.conf.broker_url, *args, **options)  # type: ignore[misc]  # untyped

    def _get_backend(self) -> Any:
        self._find_broker()
        return super()._get_backend()  # type: ignore[misc]  # untyped

    def _find_broker(self) -> None:
        if self.conf.broker_url is None:
            self.loader.find_broker()

    def _check_size(self, name: str, args: Any, kwargs: Any) -> None:
        try:
            size_bytes = len(dumps((args or (), kwargs or {})).encode())
        except (TypeError, ValueError, RecursionError, EncodeError) as error:
            raise InvalidPayload(name, f"{error}; only what JSON can hold can be submitted") from error
        limit_bytes = get_settings().max_payload_bytes
        if size_bytes > limit_bytes:
            raise PayloadTooLarge(name, size_bytes, limit_bytes)
