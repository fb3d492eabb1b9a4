"""Signs the link between a task and its body, which Celery's ``auth`` serializer does not cover.

``auth`` signs the body alone, so anyone who can write to the broker may send signed arguments again under another task
type or id, without their expiry, or with another reply address. After ``app.setup_security()``, a
task carries a second signature, over its headers, its reply address and the digest of its body:

    submit ──► headers, reply_to, correlation_id, content type, SHA-256 of the body ──► signed ──► taskapp_signature
    claim  ──► the same again ──► checked against the certificates of the store, before the body is decoded

It does not cover data that brokers and nodes change: the queue, the priority, counts of deliveries.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from celery.exceptions import SecurityError
from celery.security.certificate import Certificate, FSCertStore
from celery.security.key import PrivateKey
from celery.security.serialization import SecureSerializer
from celery.security.utils import get_digest_algorithm
from cryptography.exceptions import InvalidSignature
from kombu.serialization import dumps, register

from taskapp.client.protocol import as_sent, compressed
from taskapp.client.template import AUTH
from taskapp.engine.settlement import COPY_HEADER
from taskapp.errors.tasks import MessageRefused
from taskapp.transport.channel import EngineChannel
from taskapp.transport.codec import READY_AT_HEADER, SENT_AT_HEADER, SIGNATURE_HEADER, with_properties
from taskapp.transport.limits_header import LIMITS_HEADER
from taskapp.transport.unpacking import UNPACKED_BYTES_MOST

NOT_COVERED = frozenset({SIGNATURE_HEADER, SENT_AT_HEADER, READY_AT_HEADER, COPY_HEADER, LIMITS_HEADER})
"""Headers outside the signature: the engine sets when a task may run, and publishing a tick that waited for its broker
sets when it was sent and which copy it is. Limits are in the envelope, where scripts read them."""
SET_BY_BROKERS = "x-"
"""Prefix of headers that RabbitMQ adds."""
_CONTEXT = b"taskapp task 1\n"
"""Prefix of the signed bytes, so that no other signature, such as that of a body, is valid here."""


class Signing:
    """Signs with one key, and checks against the certificates of a store."""

    def __init__(
        self, key: Path, password: str | None, certificate: Path, store: str, digest: str, serializer: str = "json",
        limit_bytes: int = UNPACKED_BYTES_MOST,
    ) -> None:  # fmt: skip
        """Read the files.

        Args:
            key: The private key, PEM.
            password: Password of the key.
            certificate: Certificate of the key, PEM.
            store: A directory of trusted certificates, or a file pattern.
            digest: Name of a hash, such as ``sha256``.
            serializer: Serializer of the body, before it is signed.
            limit_bytes: Maximum size of a body before compression.

        Raises:
            OSError: A file cannot be read.
            celery.exceptions.SecurityError: It contains no RSA key or certificate, or an expired one.
        """
        self._key = PrivateKey(key.read_text(), password)
        self._certificate = Certificate(certificate.read_text())
        self._signer = base64.b64encode(self._certificate.get_id().encode()).decode()
        self._store = _Store(store)
        self._digest_name, self._serializer = digest, serializer
        self.limit_bytes = limit_bytes
        self._digest: Any = get_digest_algorithm(digest)
        self.writes_json = serializer in ("json", "application/json")
        """Whether signed bodies are JSON."""

    def register(self) -> None:
        """Replace Celery's serializer by one whose store reports the problem with a signature."""
        auth: Any = SecureSerializer(self._key, self._certificate, self._store, self._digest_name, self._serializer)
        register(AUTH, auth.serialize, auth.deserialize, content_type="application/data", content_encoding="utf-8")

    def signed(
        self, headers: Mapping[str, Any], properties: Mapping[str, Any], content_type: str, body: str | bytes
    ) -> dict[str, Any]:
        """Return ``headers`` with a signature, reduced to JSON types so that every broker preserves them.

        Args:
            headers: All headers of the task.
            properties: Properties of its message; ``reply_to`` and ``correlation_id`` are signed.
            content_type: Content type of the body.
            body: The serialized body, before any compression.
        """
        kept: dict[str, Any] = _plain(headers)
        signature: bytes = self._key.sign(_covered(kept, properties, content_type, body), self._digest)
        return {**kept, SIGNATURE_HEADER: f"{self._signer}:{base64.b64encode(signature).decode()}"}

    def check(
        self, headers: Mapping[str, Any], properties: Mapping[str, Any], content_type: str, body: str | bytes
    ) -> None:
        """Check the signature created by ``signed``.

        Raises:
            MessageRefused: It does not match, or its signer is not in the store.
        """
        try:
            signer, signature = (base64.b64decode(part, validate=True) for part in headers[SIGNATURE_HEADER].split(":"))
            covered = _covered(headers, properties, content_type, body)
            self._store[signer.decode()].verify(covered, signature, self._digest)
        except (SecurityError, binascii.Error, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise MessageRefused(f"its signature does not match its headers and body: {error}") from error

    def producer(self, producer: Any) -> SigningProducer:
        """Return a wrapper of kombu's ``producer`` that signs each task it publishes."""
        return SigningProducer(self, producer)


class _Store(FSCertStore):
    """The trusted certificates."""

    def __getitem__(self, name: str) -> Any:
        return _Trusted(super().__getitem__(name))


class _Trusted:
    """Celery's certificate with a working check: Celery's own names a module in ``except`` instead of its errors."""

    def __init__(self, certificate: Any) -> None:
        self._certificate = certificate

    def verify(self, data: bytes, signature: bytes, digest: Any) -> None:
        """Check that the certificate's key has signed ``data``.

        Raises:
            SecurityError: It has not, or the certificate has expired.
        """
        try:
            self._certificate.verify(data, signature, digest)
        except (InvalidSignature, TypeError) as error:
            if not isinstance(error, InvalidSignature) and not isinstance(error.__context__, InvalidSignature):
                raise
            who = self._certificate.get_id()
            raise SecurityError(f"it was changed, or not signed with the key of {who!r}") from error


class SigningProducer:
    """Wraps kombu's producer to sign tasks."""

    def __init__(self, signing: Signing, producer: Any) -> None:
        self._signing, self._producer = signing, producer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(
        self, body: Any, *, headers: Mapping[str, Any], serializer: str | None = None, compression: str | None = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        """Publish a task, signed if its serializer is ``auth``.

        Raises:
            kombu.exceptions.EncodeError: The format cannot represent it.
        """
        if serializer != AUTH:
            return self._producer.publish(
                body, headers=headers, serializer=serializer, compression=compression, **options
            )
        content_type, encoding, encoded = dumps(body, serializer=serializer)
        kept = {**headers}
        if isinstance(self._producer.channel, EngineChannel):
            if kept.get("expires"):
                kept["expires"] = self._producer.channel.in_engine_time(kept["expires"])
            kept = with_properties(kept, as_sent(options))
        packed = compressed(encoded, compression, kept, self._signing.limit_bytes)
        kept = self._signing.signed(kept, options, content_type, encoded)
        return self._producer.publish(
            packed, headers=kept, content_type=content_type, content_encoding=encoding, **options
        )


def _covered(headers: Mapping[str, Any], properties: Mapping[str, Any], content_type: str, body: str | bytes) -> bytes:
    """Return the bytes to sign."""
    kept = {
        name: value
        for name, value in headers.items()
        if name not in NOT_COVERED and not str(name).startswith(SET_BY_BROKERS)
    }
    digest = sha256(body.encode() if isinstance(body, str) else bytes(body)).hexdigest()
    whole = [_plain(kept), properties.get("reply_to"), properties.get("correlation_id"), content_type, digest]
    return _CONTEXT + json.dumps(whole, sort_keys=True, separators=(",", ":"), default=str).encode()


def _plain(value: Any) -> Any:
    """Return ``value`` reduced to JSON types; other types that some brokers support become text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {_text(key): _plain(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inside) for inside in value]
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return value.isoformat() if isinstance(value, datetime) else str(value)
