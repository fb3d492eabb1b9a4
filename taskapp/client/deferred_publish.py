"""Follow-up tasks for a broker other than Redis, kept until their run has stored its result."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

from kombu.serialization import dumps

from taskapp.engine.settlement import Settlement
from taskapp.transport.rabbitmq import submitting

PATIENCE = {"max_retries": 15, "interval_start": 0, "interval_step": 0.2, "interval_max": 1.0}
"""Retry policy of a posting; it covers an absence of the broker of about ten seconds."""


POSTING_SECONDS = 120.0
"""Time limit of one posting to a broker that accepts no messages because of an alarm."""


class Posting(NamedTuple):
    """A message for kombu to publish."""

    body: Any
    options: Mapping[str, Any]


class CollectingProducer:
    """Replaces kombu's producer: collects messages, encoded at once, instead of publishing them."""

    def __init__(self, producer: Any, settlement: Settlement) -> None:
        self._producer = producer
        self.connection = producer.connection
        self._settlement = settlement

    @property
    def channel(self) -> Any:
        """The channel of the replaced producer; connects."""
        return self._producer.channel

    def publish(self, body: Any, *, serializer: str | None = None, **options: Any) -> None:
        """Collect a message.

        Raises:
            kombu.exceptions.EncodeError: The format cannot represent it.
        """
        if "content_type" not in options:
            options["content_type"], options["content_encoding"], body = dumps(body, serializer=serializer)
        self._settlement.post(Posting(body, {**options, "retry": True, "retry_policy": PATIENCE}))


def post(app: Any, postings: list[Posting]) -> None:
    """Publish ``postings`` in order, removing each from the list once the broker has it; blocks.

    Raises:
        kombu.exceptions.OperationalError: The broker was away for longer than ``PATIENCE`` allows.
    """
    if not postings:
        return
    while postings:
        with submitting(monotonic() + POSTING_SECONDS), app.lend_producer() as producer:
            producer.publish(postings[0].body, **postings[0].options)
            del postings[0]
