"""Tasks for a broker that is not the engine's, kept until the run they follow has stored its result."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

from kombu.serialization import dumps

from taskapp.engine.settlement import Settlement
from taskapp.transport.rabbitmq import submitting

PATIENCE = {"max_retries": 15, "interval_start": 0, "interval_step": 0.2, "interval_max": 1.0}
"""How often a posting is tried again, and after how many seconds: a broker may be gone for some ten."""


POSTING_SECONDS = 120.0
"""How long one of them may take, of a broker that is there and does not take it, for an alarm."""


class Posting(NamedTuple):
    """A message as kombu is to publish it."""

    body: Any
    options: Mapping[str, Any]


class CollectingProducer:
    """Stands in for a producer of kombu: what is published is collected, encoded as it is now."""

    def __init__(self, producer: Any, settlement: Settlement) -> None:
        self._producer = producer
        self.connection = producer.connection
        self._settlement = settlement

    @property
    def channel(self) -> Any:
        """The channel of the producer it stands for; connects."""
        return self._producer.channel

    def publish(self, body: Any, *, serializer: str | None = None, **options: Any) -> None:
        """Collect a message.

        Raises:
            kombu.exceptions.EncodeError: It holds what the format cannot.
        """
        if "content_type" not in options:
            options["content_type"], options["content_encoding"], body = dumps(body, serializer=serializer)
        self._settlement.post(Posting(body, {**options, "retry": True, "retry_policy": PATIENCE}))


def post(app: Any, postings: list[Posting]) -> None:
    """Publish ``postings`` in order, taking off the list what the broker has; blocks.

    Raises:
        kombu.exceptions.OperationalError: The broker was away for longer than ``PATIENCE`` allows.
    """
    if not postings:
        return
    while postings:
        with submitting(monotonic() + POSTING_SECONDS), app.lend_producer() as producer:
            producer.publish(postings[0].body, **postings[0].options)
            del postings[0]
