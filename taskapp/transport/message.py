"""A claimed message as kombu and Celery see it; for taskapp's own format it bypasses kombu's slow constructor."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from kombu.transport.virtual.base import Message

from taskapp.engine.claims import Claimed
from taskapp.engine.clock import Clock
from taskapp.engine.envelope import OURS
from taskapp.transport.codec import (
    PROPERTIES_HEADER,
    READY_AT_HEADER,
    Unreadable,
    carried_properties,
    claim_by,
    due_at_of,
    sent_at_of,
    shifted,
    unpack,
)
from taskapp.transport.protocol1 import read_as_protocol_2
from taskapp.transport.unpacking import CannotUnpack, unpacked

LONG_AGO = "1970-01-01T00:00:00+00:00"

_Message: Any = Message  # the package has no types


class Unpacking:
    """Mixed into kombu's message, unpacks its body up to a limit; errors are kept in ``errors``, like kombu's."""

    errors: Any
    headers: Any
    body: Any

    def _read_packed(self, read: Callable[[], None], most_bytes: int) -> None:
        """Let ``read`` initialise the message as received, and unpack its body."""
        self.errors = [None]  # kombu does not unpack a message that has errors
        read()
        self.errors = []
        self._unpack(most_bytes)

    def _unpack(self, most_bytes: int) -> None:
        try:
            self.body = unpacked(self.body, self.headers["compression"], most_bytes)
        except CannotUnpack as error:
            # Without a traceback, which would keep the partly unpacked body in memory.
            self.errors = [(CannotUnpack, error.with_traceback(None), None)]


class BoundedMessage(Unpacking, _Message):
    """A kombu message: remote control or an event."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        read = partial(super().__init__, payload, channel=channel, **options)
        if (payload.get("headers") or {}).get("compression"):
            self._read_packed(read, channel.unpacked_bytes_most)
        else:
            read()


class Received(BoundedMessage):
    """One claimed message."""

    as_sent: dict[str, Any]
    """Original values of headers that were changed when it was claimed."""
    envelope_names: tuple[str, str]
    """Id and task type in its envelope; empty if it has none."""
    is_foreign: bool
    """Whether another program wrote it, so that its headers must be checked."""

    def __init__(self, claimed: Claimed, channel: Any) -> None:
        """Read ``claimed``.

        Raises:
            Unreadable: It is not a message.
        """
        envelope = claimed.envelope
        payload = unpack(envelope)
        self.is_foreign = envelope.version not in OURS
        self.as_sent, self.envelope_names = {}, (envelope.id, envelope.task)
        properties = payload["properties"]
        delivery_info = properties["delivery_info"]
        properties["delivery_tag"], properties["lease"] = claimed.tag, claimed.lease
        properties["deliveries"] = envelope.deliveries
        delivery_info["redelivered"] = envelope.deliveries > 0
        if self.is_foreign:
            super().__init__(payload, channel=channel)
            if "task" not in self.headers:
                read_as_protocol_2(self, channel.accepted)
            return
        headers = payload["headers"]
        if headers.get("id") != envelope.id or headers.get("task") != envelope.task:
            raise Unreadable(
                f"its header names the task {headers.get('task')!r} with the id {headers.get('id')!r}, "
                f"but its envelope names {envelope.task!r} with {envelope.id!r}"
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

    def early_seconds(self, clock: Clock) -> float:
        """Return the seconds until it is due; errors are those of ``take_times``."""
        eta = self.headers.get("eta")
        return datetime.fromisoformat(eta).timestamp() - clock.now_ms() / 1_000 if eta else 0.0

    def take_times(self, clock: Clock) -> None:
        """Move its due time to ``as_sent``, and convert its expiry to this machine's time.

        Raises:
            ValueError, TypeError, AttributeError: A header is invalid.
        """
        headers = self.headers
        if eta := headers.get("eta"):
            self.as_sent["eta"] = eta
            headers["eta"] = None  # it is due: Celery must not hold it in memory
            if READY_AT_HEADER not in headers and not self.properties["deliveries"]:
                headers[READY_AT_HEADER] = due_at_of(eta, sent_at_of(headers))
        if headers.get("expires"):
            self.as_sent["expires"] = headers["expires"]
            headers["expires"] = shifted(headers["expires"], -clock.ahead_of_here_seconds())
        if PROPERTIES_HEADER in headers:
            self._take_properties(eta, clock)

    def _take_properties(self, eta: str | None, clock: Clock) -> None:
        """Restore properties sent in a header; mark the task as expired if it was claimed later than they allow."""
        headers = self.headers
        carried = carried_properties(headers)
        self.properties.update(carried)
        until = claim_by(headers, eta, carried)
        if until is not None and until < clock.now_ms() / 1_000:
            self.as_sent.setdefault("expires", headers.get("expires"))
            headers["expires"] = LONG_AGO
