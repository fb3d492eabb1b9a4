"""Between kombu's messages and the bytes in Redis.

A task travels as a sealed envelope around MessagePack, a tenth of the work of kombu's JSON with its
base64. Everything else (remote control, replies) and what stock Celery sent stays kombu's JSON.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from math import ceil, isfinite
from typing import Any

import msgspec
from kombu.utils.json import dumps, loads

from taskapp.engine.envelope import LONGEST_NAME_BYTES, OURS, Envelope, seal, unseal
from taskapp.engine.headers import PROPERTIES, check_follow_ups, check_headers

logger = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode = msgspec.msgpack.Decoder(tuple[Any, str, str | None, dict[str, Any], str | None, str | None, str, str]).decode
"""Body, content type, encoding, headers, correlation id, reply to, exchange and routing key."""
to_json = msgspec.json.Encoder(enc_hook=str).encode
"""A message as kombu writes it: all strings, numbers and mappings."""


FOREIGN_BYTES_MOST = 32 * 1024 * 1024
"""A message that was not written by us and is larger is not read: its decoding would hold up the node for seconds."""


SKEW_SECONDS = 0.5
"""Clocks of machines nearer than this are taken as equal when an expiry is compared."""


SENT_AT_HEADER = "taskapp_sent_at"
"""In the headers of a task: when it was submitted, Unix seconds by the engine's clock."""

READY_AT_HEADER = "taskapp_ready_at"
"""In the headers of a task that could not run when it was submitted or due: since when it can, Unix seconds by the
engine's clock. Scripts write it, see ``with_ready_at`` in ``prelude.lua``."""

SIGNATURE_HEADER = "taskapp_signature"
"""In the headers of a signed task: who signed, and the signature, both in Base64 with a colon between."""


PROPERTIES_HEADER = "taskapp_properties"
"""In the headers of a task: those properties of AMQP it was sent with that have no place of their own."""


def with_properties(headers: dict[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``headers`` with what of ``properties`` has no place of its own, unless they hold it already.

    As in Celery, ``expires`` takes the place of ``expiration``.
    """
    carried = {name: properties[name] for name in PROPERTIES if properties.get(name) is not None}
    if headers.get("expires"):
        carried.pop("expiration", None)
    return {**headers, PROPERTIES_HEADER: carried} if carried and PROPERTIES_HEADER not in headers else headers


def carried_properties(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the properties that came in the headers of a task.

    Raises:
        BadHeader: They are none.
    """
    check_headers({PROPERTIES_HEADER: headers[PROPERTIES_HEADER]})
    carried: Mapping[str, Any] = headers[PROPERTIES_HEADER]
    return carried


def claim_by(headers: Mapping[str, Any], eta: str | None, properties: Mapping[str, Any]) -> float | None:
    """Return until when a task may be claimed by its ``expiration``, Unix seconds by the engine's clock.

    It counts from when the task was submitted, or is due. ``None``: for ever.

    Raises:
        ValueError: It is no number, or ``eta`` no moment.
    """
    began_at = sent_at_of(headers)
    if "expiration" not in properties or began_at is None:
        return None
    due_at = datetime.fromisoformat(eta).timestamp() if eta else began_at
    return max(began_at, due_at) + int(properties["expiration"]) / 1_000


def sent_at_of(headers: Mapping[str, Any]) -> float | None:
    """Return when a task was submitted; ``None``: its message does not say, or no moment."""
    sent_at = headers.get(SENT_AT_HEADER)
    return sent_at if type(sent_at) is float and isfinite(sent_at) else None


def ready_at_of(headers: Mapping[str, Any]) -> float | None:
    """Return since when a task may run, Unix seconds: the moment from which it waits for a slot.

    When it was submitted, or is due; when it was replayed, given back by a node or found a node with its type, if that
    was later. ``None``: its message does not say.
    """
    ready_at = headers.get(READY_AT_HEADER)
    if ready_at is not None:
        return ready_at if type(ready_at) is float and isfinite(ready_at) else None
    delivery = headers.get("delivery_info")
    if delivery is not None and delivery.get("redelivered"):
        return None  # by a broker that is not the engine's
    sent_at = sent_at_of(headers)
    eta = headers.get("eta")
    return sent_at if sent_at is None or not eta else due_at_of(eta, sent_at)


def due_at_of(eta: Any, sent_at: float | None) -> float | None:
    """Return when a task with this ``eta`` is due, not before it was submitted; ``None``: that is no moment."""
    try:
        return max(datetime.fromisoformat(eta).timestamp(), sent_at or 0.0)
    except (TypeError, ValueError, OverflowError):
        return None


class Unreadable(ValueError):
    """Bytes that are no message."""


def pack(message: dict[str, Any], priority: int) -> tuple[str, bytes]:
    """Return the id and the bytes of a kombu message."""
    headers = message["headers"]
    identity, task = headers.get("id"), headers.get("task")
    if not (_fits(identity) and _fits(task)):
        return "", to_json(message)
    properties = message["properties"]
    delivery_info = properties["delivery_info"]
    return identity, pack_task(
        (message["body"], message["content-type"], message["content-encoding"]),
        with_properties(headers, properties), priority,
        properties.get("correlation_id"), properties.get("reply_to"),
        delivery_info.get("exchange", ""), delivery_info.get("routing_key", ""),
    )  # fmt: skip


def pack_task(
    content: tuple[Any, str, str], headers: dict[str, Any], priority: int,
    correlation_id: str | None, reply_to: str | None, exchange: str, routing_key: str,
) -> bytes:  # fmt: skip
    """Return the bytes of a task with these ``headers`` of Celery's and this body, content type and encoding.

    Raises:
        ValueError: The id or the name takes more than 255 bytes.
    """
    body = _encode((*content, headers, correlation_id, reply_to, exchange, routing_key))
    return seal(headers["id"], headers["task"], priority, body)


def time_of(headers: dict[str, Any], ahead_seconds: Callable[[], float]) -> int:
    """Return when a task with these headers is due, by the engine's time in ms, and put its expiry into that time.

    Args:
        headers: ``expires`` is changed, unless they are signed: then it is in the engine's time already.
        ahead_seconds: Says how far the engine's time is ahead of this machine's; may ask the server.
    """
    if (expires := headers.get("expires")) and SIGNATURE_HEADER not in headers:
        # The node that claims it turns it into its own time.
        headers["expires"] = shifted(expires, ahead_seconds())
    if eta := headers.get("eta"):
        return ceil((datetime.fromisoformat(eta).timestamp() + ahead_seconds()) * 1_000)
    return 0


def shifted(moment: str, seconds: float) -> str:
    """Return an ISO time moved by ``seconds``, unless that is less than clocks may differ."""
    if abs(seconds) < SKEW_SECONDS:
        return moment
    return (datetime.fromisoformat(moment) + timedelta(seconds=seconds)).isoformat()


def _fits(name: Any) -> bool:
    return isinstance(name, str) and len(name.encode()) <= LONGEST_NAME_BYTES


def unpack(envelope: Envelope) -> dict[str, Any]:
    """Return the kombu message in ``envelope``, without a delivery tag.

    Raises:
        Unreadable: It is none; says why.
    """
    if envelope.version == OURS:
        return _unpack_ours(envelope)
    if len(envelope.body) > FOREIGN_BYTES_MOST:
        raise Unreadable(f"it takes {len(envelope.body)} bytes; what others send may take {FOREIGN_BYTES_MOST}")
    return _unpack_json(envelope.body)


def read_arguments(raw: bytes) -> tuple[Any, Any]:
    """Return args and kwargs of the task in ``raw``.

    Raises:
        Unreadable: It holds no task whose body is JSON.
    """
    return arguments_in(unseal(raw))


def arguments_in(envelope: Envelope) -> tuple[Any, Any]:
    """Return the same of the task in ``envelope``; errors as with ``read_arguments``."""
    args, kwargs, _ = _body(unpack(envelope))
    return args, kwargs


def read_headers(envelope: Envelope) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the headers of a task and what its body says of the tasks that follow, see ``read_follow_ups``.

    Raises:
        Unreadable: It is no message.
    """
    try:
        message = unpack(envelope)
    except Unreadable:
        return _headers_alone(envelope), None
    body: Any = message.get("body")
    if message["properties"].get("body_encoding") == "base64":
        with suppress(ValueError, TypeError):
            body = base64.b64decode(body)
    return message["headers"], read_follow_ups(body, message.get("content-type"))


def _headers_alone(envelope: Envelope) -> dict[str, Any]:
    """Return the headers of a message of kombu's of which something else cannot be read."""
    if envelope.version == OURS or len(envelope.body) > FOREIGN_BYTES_MOST:
        raise Unreadable("its headers cannot be read")
    try:
        headers = json.loads(envelope.body)["headers"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise Unreadable(f"its headers cannot be read: {error}") from error
    return headers if isinstance(headers, dict) else {}


def read_follow_ups(body: Any, content_type: Any) -> dict[str, Any] | None:
    """Return what a body says of the tasks that follow (links, chain, chord), although its arguments may be unreadable.

    ``None``: that cannot be read either.
    """
    if content_type != "application/json" or not isinstance(body, str | bytes):
        return None
    try:
        # Not as kombu reads it: an argument it cannot make is the most common reason to be here.
        embed = json.loads(body)[2] or {}
        check_follow_ups(embed)
        return loads(json.dumps(embed))  # type: ignore[no-any-return]  # a dict, as was checked
    except Exception as error:  # noqa: BLE001 - whatever it holds
        logger.debug("what follows a task cannot be read: %s", error)
        return None


def edit_arguments(raw: bytes, args: list[Any] | None, kwargs: dict[str, Any] | None) -> bytes:
    """Return the message ``raw`` with other arguments, where they are given.

    Raises:
        Unreadable: It holds no task whose body is JSON.
    """
    envelope = unseal(raw)
    message = unpack(envelope)
    body = _body(message)
    if args is not None:
        body[0] = args
    if kwargs is not None:
        body[1] = kwargs
    message["body"], message["content-encoding"] = dumps(body), "utf-8"
    message["properties"].pop("body_encoding", None)
    _, blob = pack(message, envelope.priority)
    return blob


def _body(message: dict[str, Any]) -> list[Any]:
    if message.get("content-type") != "application/json":
        raise Unreadable(f"its arguments are {message.get('content-type')}, not JSON")
    try:
        body = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        args, kwargs, embed = loads(body)
    except Exception as error:  # whatever the types that JSON lacks are made of
        raise Unreadable(f"its arguments cannot be read: {error}") from error
    return [args, kwargs, embed]


def _unpack_ours(envelope: Envelope) -> dict[str, Any]:
    try:
        body, content_type, encoding, headers, correlation_id, reply_to, exchange, key = _decode(envelope.body)
        if not isinstance(body, str | bytes):
            raise Unreadable(f"its body is no text and no bytes: {type(body).__name__}")
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        raise Unreadable(f"not a message of this version: {error}") from error
    return {
        "body": body,
        "content-type": content_type,
        "content-encoding": encoding,
        "headers": headers,
        "properties": {
            "correlation_id": correlation_id,
            "reply_to": reply_to,
            "priority": envelope.priority,
            "delivery_mode": 2,
            "delivery_info": {"exchange": exchange, "routing_key": key},
        },
    }


def _unpack_json(body: bytes) -> dict[str, Any]:
    try:
        message = loads(body.decode())
    except Exception as error:  # whatever the types that JSON lacks are made of
        raise Unreadable(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise Unreadable(f"a JSON {type(message).__name__}, not a message")
    properties = message.get("properties")
    if not isinstance(properties, dict) or not isinstance(message.get("headers"), dict):
        raise Unreadable("no properties or headers")
    if not isinstance(properties.get("delivery_info"), dict):
        raise Unreadable("no delivery_info")
    return message
