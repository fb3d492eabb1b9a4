"""Reads messages in the queues of a test: what a node would see of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from taskapp.engine.claims import Claimed
from taskapp.engine.envelope import unseal
from taskapp.testing.engine import LEASE
from taskapp.testing.records import Submitted
from taskapp.testing.transport import MemoryChannel
from taskapp.transport.codec import PROPERTIES_HEADER, READY_AT_HEADER, SENT_AT_HEADER, SIGNATURE_HEADER
from taskapp.transport.message import Received
from taskapp.worker.run.execute import decode
from taskapp.worker.run.request_context import KNOWN_HEADERS

OWN = KNOWN_HEADERS | {
    SENT_AT_HEADER, READY_AT_HEADER, SIGNATURE_HEADER, PROPERTIES_HEADER, "stamps", "stamped_headers", "group_index",
}  # fmt: skip
"""Headers that are not the user's."""


class Reader:
    """Reads the messages of one app."""

    def __init__(self, app: Any, channel: MemoryChannel) -> None:
        self._app, self._channel = app, channel

    def read(self, queue: str, priority: int, blob: bytes) -> Submitted | None:
        """Return the task in a message; ``None``: it holds none that a node could read."""
        envelope = unseal(blob)
        if not envelope.task:
            return None
        message = Received(Claimed("read", queue, priority, envelope, LEASE), self._channel)
        headers = message.headers
        try:
            args, kwargs, _ = decode(self._app, message.body, message.content_type, message.content_encoding)
        except Exception:  # noqa: BLE001 - a node says why when it runs
            args, kwargs = (), {}
        return Submitted(
            envelope.task, tuple(args), kwargs, queue, priority, self._moment(headers.get("eta")),
            self._moment(headers.get("expires")), _options(headers), headers.get("retries") or 0, envelope.id,
            headers.get("root_id") or "", headers.get("parent_id"),
            headers.get("group"),
        )  # fmt: skip

    def _moment(self, text: str | None) -> datetime | None:
        return datetime.fromisoformat(text).astimezone(self._app.timezone) if text else None


def _options(headers: dict[str, Any]) -> dict[str, Any]:
    time_limit, soft_time_limit = (*(headers.get("timelimit") or ()), None, None)[:2]
    options = {
        "time_limit": time_limit, "soft_time_limit": soft_time_limit, "shadow": headers.get("shadow"),
        "ignore_result": headers.get("ignore_result") or None,
        "headers": {name: value for name, value in headers.items() if name not in OWN} or None,
    }  # fmt: skip
    return {name: value for name, value in options.items() if value is not None}
