"""Which messages a node takes, asked before anything of them is decoded, whatever broker they come from.

Their content type must be in ``accept_content``. Where tasks are signed, headers and body must be those that were.
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
    """Refuses messages that a node must not run; made once for each consumer, as the configuration is then."""

    def __init__(self, app: Any) -> None:
        """Read the configuration of ``app``.

        Raises:
            KeyError: ``accept_content`` names a serializer that nobody has registered.
        """
        self._names = app.conf.accept_content
        self._signing = app.signing
        self._signed_type = _registry.name_to_type.get(AUTH)
        # ``None`` is Celery's word for all but those that kombu has disabled; these it refuses as it decodes.
        accepted = prepare_accept_content(self._names)
        self._accepted = frozenset(_registry.type_to_name if accepted is None else accepted)
        self.taken_at_once = self._accepted if self._signing is None else self._accepted - {self._signed_type}
        """Content types of messages that need no ``check``."""

    def check(self, message: Any) -> None:
        """Check a message whose content type is not among those that are ``taken_at_once``.

        kombu lets pass what has no content type, and text and bytes without a format: no task is one of these.

        Raises:
            MessageRefused: It must not run here.
        """
        if message.content_type not in self._accepted:
            raise MessageRefused(
                f"its content type {message.content_type!r} is none of accept_content {list(self._names or ())}"
            )
        if message.content_type == self._signed_type:
            self._check_signature(message)

    def _check_signature(self, message: Any) -> None:
        headers = message.headers
        if headers.get(SIGNATURE_HEADER) is None:
            if get_settings().accept_body_signatures:
                return
            raise MessageRefused(
                "its headers are not signed, only its body, as stock Celery does it; "
                "TASKAPP_ACCEPT_BODY_SIGNATURES takes such messages"
            )
        if isinstance(message, Received):
            headers = {**headers, **message.as_sent}
            names = message.envelope_names
            if names[0] and names != (headers.get("id"), headers.get("task")):
                raise MessageRefused(f"its envelope names another task: {names[1]}[{names[0]}]")
        self._signing.check(headers, message.properties, message.content_type, message.body)
