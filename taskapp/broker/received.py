"""A claimed message as kombu and Celery see it, made without kombu's detours where it is in our own format."""

from __future__ import annotations

from typing import Any

from kombu.transport.virtual.base import Message

from taskapp.broker.claims import Claimed
from taskapp.broker.message_format import unpack

_Message: Any = Message  # the package has no types


class Received(_Message):
    """One claimed message."""

    as_sent: dict[str, Any]
    """Headers that were changed as it was claimed, as they were before."""
    envelope_names: tuple[str, str]
    """Id and task type in its envelope; empty where there is none."""
    is_foreign: bool
    """Whether it was written by something else than this package; what it says of itself is to be checked."""

    def __init__(self, claimed: Claimed, channel: Any) -> None:
        """Read ``claimed``.

        Raises:
            Unreadable: It is no message.
        """
        envelope = claimed.envelope
        payload = unpack(envelope)
        self.is_foreign = envelope.id == ""
        self.as_sent, self.envelope_names = {}, (envelope.id, envelope.task)
        properties = payload["properties"]
        delivery_info = properties["delivery_info"]
        properties["delivery_tag"], properties["lease"] = claimed.tag, claimed.lease
        properties["deliveries"] = envelope.deliveries
        delivery_info["redelivered"] = envelope.deliveries > 0
        if self.is_foreign:
            super().__init__(payload, channel=channel)
            return
        self.errors = None
        self.channel = channel
        self.delivery_tag = claimed.tag
        self.content_type = payload["content-type"]
        self.content_encoding = payload["content-encoding"]
        self.delivery_info = delivery_info
        self.headers = payload["headers"]
        self.properties = properties
        self.body = payload["body"]
        self.accept = self._decoded_cache = None
        self._state = "RECEIVED"
        self._raw = None
        if self.headers.get("compression"):
            super().__init__(payload, channel=channel)
