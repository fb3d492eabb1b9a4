"""Checks that decide, before any decoding, whether a node accepts a message from any broker.

The content type must be in ``accept_content``. Where tasks are signed, the signature must match headers and body.
"""

from __future__ import annotations

from typing import Any

from kombu import serialization
from kombu.serialization import prepare_accept_content

from taskapp.client.template import AUTH
from taskapp.errors.tasks import MessageRefused
from taskapp.settings import get_settings
from taskapp.transport.codec import SIGNATURE_HEADER
from taskapp.transport.message import Received

_registry: Any = serialization.registry  # type: ignore[attr-defined]  # missing in the stubs


class Admission:
    """Refuses messages that a node must not run. Each consumer creates one and fixes the configuration at that time."""

    def __init__(self, app: Any) -> None:
        """Read the configuration of ``app``.

        Raises:
            KeyError: ``accept_content`` names a serializer that is not registered.
        """
        self._names = app.conf.accept_content
        self._signing = app.signing
        self._signed_type = _registry.name_to_type.get(AUTH)
        # In Celery, ``None`` accepts all serializers that kombu has not disabled; kombu refuses the others on decoding.
        accepted = prepare_accept_content(self._names)
        self._accepted = frozenset(_registry.type_to_name if accepted is None else accepted)
        self.taken_at_once = self._accepted if self._signing is None else self._accepted - {self._signed_type}
        """Content types that need no ``check``."""

    def check(self, message: Any) -> None:
        """Check a message whose content type is not in ``taken_at_once``.

        kombu accepts messages without a content type, plain text and raw bytes; none of these can be a task.

        Raises:
            MessageRefused: The message must not run here.
        """
        if message.content_type not in self._accepted:
            raise MessageRefused(
                f"its content type {message.content_type!r} is not in accept_content {list(self._names or ())}"
            )
        if message.content_type == self._signed_type:
            self._check_signature(message)

    def _check_signature(self, message: Any) -> None:
        headers = message.headers
        if headers.get(SIGNATURE_HEADER) is None:
            if get_settings().accept_body_signatures:
                return
            raise MessageRefused(
                "only its body is signed, not its headers, as stock Celery does; "
                "set TASKAPP_ACCEPT_BODY_SIGNATURES to accept such messages"
            )
        if isinstance(message, Received):
            headers = {**headers, **message.as_sent}
            names = message.envelope_names
            if names[0] and names != (headers.get("id"), headers.get("task")):
                raise MessageRefused(f"its envelope names another task: {names[1]}[{names[0]}]")
        self._signing.check(headers, message.properties, message.content_type, message.body)
