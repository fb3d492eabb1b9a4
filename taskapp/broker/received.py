"""A claimed message as kombu and Celery see it, made without kombu's detours where it is in our own format."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kombu.transport.virtual.base import Message

from taskapp.broker.claims import Claimed
from taskapp.broker.envelope import OURS
from taskapp.broker.message_format import Unreadable, unpack
from taskapp.broker.unpacking import CannotUnpack, unpacked

_Message: Any = Message  # the package has no types


class Unpacking:
    """Mixed into a message of kombu, unpacks it up to a limit; errors are kept for who takes it, as kombu's are."""

    errors: Any
    headers: Any
    body: Any

    def _read_packed(self, read: Callable[[], None], most_bytes: int) -> None:
        """Let ``read`` set the message up as it came, and unpack its body."""
        self.errors = [None]  # kombu unpacks no message that has errors
        read()
        self.errors = []
        self._unpack(most_bytes)

    def _unpack(self, most_bytes: int) -> None:
        try:
            self.body = unpacked(self.body, self.headers["compression"], most_bytes)
        except CannotUnpack as error:
            # Without a traceback, which would keep what was unpacked so far.
            self.errors = [(CannotUnpack, error.with_traceback(None), None)]


class BoundedMessage(Unpacking, _Message):
    """A message of kombu, as remote control and events are."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        read = partial(super().__init__, payload, channel=channel, **options)
        if (payload.get("headers") or {}).get("compression"):
            self._read_packed(read, channel.unpacked_bytes_most)
        else:
            read()


class Received(BoundedMessage):
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
        self.is_foreign = envelope.version != OURS
        self.as_sent, self.envelope_names = {}, (envelope.id, envelope.task)
        properties = payload["properties"]
        delivery_info = properties["delivery_info"]
        properties["delivery_tag"], properties["lease"] = claimed.tag, claimed.lease
        properties["deliveries"] = envelope.deliveries
        delivery_info["redelivered"] = envelope.deliveries > 0
        if self.is_foreign:
            super().__init__(payload, channel=channel)
            return
        headers = payload["headers"]
        if headers.get("id") != envelope.id or headers.get("task") != envelope.task:
            raise Unreadable(
                f"its header names the task {headers.get('task')!r} with the id {headers.get('id')!r}, "
                f"its envelope {envelope.task!r} with {envelope.id!r}"
            )
        self.errors = None
        self.channel = channel
        self.delivery_tag = claimed.tag
        self.content_type = payload["content-type"]
        self.content_encoding = payload["content-encoding"]
        self.delivery_info = delivery_info
        self.headers = headers
        self.properties = properties
        self.body = payload["body"]
        self.accept = self._decoded_cache = None
        self._state = "RECEIVED"
        self._raw = None
        if self.headers.get("compression"):
            self._unpack(channel.unpacked_bytes_most)
