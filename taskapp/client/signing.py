"""Signs what Celery's ``auth`` serializer leaves open: which task a signed body belongs to.

``auth`` signs the body alone, so whoever can write to the broker may send signed arguments again under another task
type or id, without their expiry, or with another address for the reply. Where ``app.setup_security()`` was called, a
task carries a second signature, over its headers, its reply and the digest of its body:

    submit ──► headers, reply_to, correlation_id, content type, SHA-256 of the body ──► signed ──► taskapp_signature
    claim  ──► the same again ──► checked against the certificates of the store, before the body is decoded

What brokers and nodes change on the way is not covered: the queue, the priority, counts of deliveries.
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

NOT_COVERED = frozenset({SIGNATURE_HEADER, SENT_AT_HEADER, READY_AT_HEADER, COPY_HEADER})
"""When a task may run is the engine's to say; when it was sent and which copy it is are set anew when a tick that
waited for its broker is published."""
SET_BY_BROKERS = "x-"
"""How the headers begin that RabbitMQ adds."""
_CONTEXT = b"taskapp task 1\n"
"""So that no signature of anything else, such as a body, can stand for one of these."""


class Signing:
    """Signs with one key, and checks with the certificates of a store."""

    def __init__(
        self, key: Path, password: str | None, certificate: Path, store: str, digest: str, serializer: str = "json"
    ) -> None:
        """Read the files.

        Args:
            key: The private key, PEM.
            password: Of the key.
            certificate: Of the key, PEM.
            store: A directory of certificates, or a pattern of files; who has one of them is trusted.
            digest: The name of a hash, such as ``sha256``.
            serializer: What writes a body before it is signed.

        Raises:
            OSError: A file cannot be read.
            celery.exceptions.SecurityError: It holds no RSA key or certificate, or one that has expired.
        """
        self._key = PrivateKey(key.read_text(), password)
        self._certificate = Certificate(certificate.read_text())
        self._signer = base64.b64encode(self._certificate.get_id().encode()).decode()
        self._store = _Store(store)
        self._digest_name, self._serializer = digest, serializer
        self._digest: Any = get_digest_algorithm(digest)
        self.writes_json = serializer in ("json", "application/json")
        """Whether signed bodies hold JSON."""

    def register(self) -> None:
        """Register Celery's serializer anew, with a store that tells what is wrong with a signature."""
        auth: Any = SecureSerializer(self._key, self._certificate, self._store, self._digest_name, self._serializer)
        register(AUTH, auth.serialize, auth.deserialize, content_type="application/data", content_encoding="utf-8")

    def signed(
        self, headers: Mapping[str, Any], properties: Mapping[str, Any], content_type: str, body: str | bytes
    ) -> dict[str, Any]:
        """Return ``headers`` with a signature, and as JSON has them: the same whatever carries them.

        Args:
            headers: All that the task will have.
            properties: Of its message; ``reply_to`` and ``correlation_id`` are signed.
            content_type: Of the body.
            body: As it is serialized, before any compression.
        """
        kept: dict[str, Any] = _plain(headers)
        signature: bytes = self._key.sign(_covered(kept, properties, content_type, body), self._digest)
        return {**kept, SIGNATURE_HEADER: f"{self._signer}:{base64.b64encode(signature).decode()}"}

    def check(
        self, headers: Mapping[str, Any], properties: Mapping[str, Any], content_type: str, body: str | bytes
    ) -> None:
        """Check the signature that ``signed`` has made of these.

        Raises:
            MessageRefused: It is not of these, or not by anybody in the store.
        """
        try:
            signer, signature = (base64.b64decode(part, validate=True) for part in headers[SIGNATURE_HEADER].split(":"))
            covered = _covered(headers, properties, content_type, body)
            self._store[signer.decode()].verify(covered, signature, self._digest)
        except (SecurityError, binascii.Error, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise MessageRefused(f"its signature is not that of its headers and body: {error}") from error

    def producer(self, producer: Any) -> SigningProducer:
        """Return what signs each task that is published by ``producer``, one of kombu."""
        return SigningProducer(self, producer)


class _Store(FSCertStore):
    """The certificates of who is trusted."""

    def __getitem__(self, name: str) -> Any:
        return _Trusted(super().__getitem__(name))


class _Trusted:
    """A certificate of Celery's whose check means what it says: Celery catches a module there, not its errors."""

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
    """Stands in for a producer of kombu."""

    def __init__(self, signing: Signing, producer: Any) -> None:
        self._signing, self._producer = signing, producer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(
        self, body: Any, *, headers: Mapping[str, Any], serializer: str | None = None, compression: str | None = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        """Publish a task, signed if its serializer is the one that signs.

        Raises:
            kombu.exceptions.EncodeError: It holds what the format cannot.
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
        packed = compressed(encoded, compression, kept)
        kept = self._signing.signed(kept, options, content_type, encoded)
        return self._producer.publish(
            packed, headers=kept, content_type=content_type, content_encoding=encoding, **options
        )


def _covered(headers: Mapping[str, Any], properties: Mapping[str, Any], content_type: str, body: str | bytes) -> bytes:
    """Return the bytes that are signed."""
    kept = {
        name: value
        for name, value in headers.items()
        if name not in NOT_COVERED and not str(name).startswith(SET_BY_BROKERS)
    }
    digest = sha256(body.encode() if isinstance(body, str) else bytes(body)).hexdigest()
    whole = [_plain(kept), properties.get("reply_to"), properties.get("correlation_id"), content_type, digest]
    return _CONTEXT + json.dumps(whole, sort_keys=True, separators=(",", ":"), default=str).encode()


def _plain(value: Any) -> Any:
    """Return ``value`` as it comes out of JSON; what else some brokers know becomes text."""
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
