"""Encodes and decodes messages: kombu's on one side, the bytes in Redis on the other.

A task is sent as a sealed envelope around MessagePack, at a tenth of the cost of kombu's JSON with
base64. Everything else (remote control, replies), and messages of stock Celery, stay kombu's JSON.
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
from taskapp.transport.limits_header import LIMITS_HEADER, in_header

logger = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode = msgspec.msgpack.Decoder(tuple[Any, str, str | None, dict[str, Any], str | None, str | None, str, str]).decode
"""Body, content type, encoding, headers, correlation id, reply to, exchange and routing key."""
to_json = msgspec.json.Encoder(enc_hook=str).encode
"""Encodes a message as kombu writes it: all strings, numbers and mappings."""


FOREIGN_BYTES_MOST = 32 * 1024 * 1024
"""Maximum size of a message of another program: decoding a larger one would block the node for seconds."""


SKEW_SECONDS = 0.5
"""Difference between clocks of machines up to which they count as equal for an expiry."""


SENT_AT_HEADER = "taskapp_sent_at"
"""Header of a task: when it was submitted, Unix seconds by the engine's clock."""

READY_AT_HEADER = "taskapp_ready_at"
"""Header of a task that could not run when it was submitted or due: since when it can, Unix seconds by the
engine's clock. Scripts write it, see ``with_ready_at`` in ``prelude.lua``."""

SIGNATURE_HEADER = "taskapp_signature"
"""Header of a signed task: the signer and the signature, both in Base64, separated by a colon."""


PROPERTIES_HEADER = "taskapp_properties"
"""Header of a task: AMQP properties that have no place elsewhere in its message."""


def with_properties(headers: dict[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``headers`` with those of ``properties`` that need ``PROPERTIES_HEADER``, unless it is already set.

    As in Celery, ``expires`` overrides ``expiration``.
    """
    carried = {name: properties[name] for name in PROPERTIES if properties.get(name) is not None}
    if headers.get("expires"):
        carried.pop("expiration", None)
    return {**headers, PROPERTIES_HEADER: carried} if carried and PROPERTIES_HEADER not in headers else headers


def carried_properties(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the properties in ``PROPERTIES_HEADER`` of a task.

    Raises:
        BadHeader: The header is invalid.
    """
    check_headers({PROPERTIES_HEADER: headers[PROPERTIES_HEADER]})
    carried: Mapping[str, Any] = headers[PROPERTIES_HEADER]
    return carried


def claim_by(headers: Mapping[str, Any], eta: str | None, properties: Mapping[str, Any]) -> float | None:
    """Return the latest time to claim a task by its ``expiration``, Unix seconds by the engine's clock.

    It counts from when the task was submitted, or is due. ``None``: no limit.

    Raises:
        ValueError: ``expiration`` is not a number, or ``eta`` is not a time.
    """
    began_at = sent_at_of(headers)
    if "expiration" not in properties or began_at is None:
        return None
    due_at = datetime.fromisoformat(eta).timestamp() if eta else began_at
    return max(began_at, due_at) + int(properties["expiration"]) / 1_000


def sent_at_of(headers: Mapping[str, Any]) -> float | None:
    """Return when a task was submitted, Unix seconds; ``None``: its message has no valid time."""
    sent_at = headers.get(SENT_AT_HEADER)
    return sent_at if type(sent_at) is float and isfinite(sent_at) else None


def ready_at_of(headers: Mapping[str, Any]) -> float | None:
    """Return since when a task may run and has been waiting for a slot, Unix seconds.

    That is when it was submitted or due, or later: when it was replayed, returned by a node, or when a node with its
    type started. ``None``: unknown.
    """
    ready_at = headers.get(READY_AT_HEADER)
    if ready_at is not None:
        return ready_at if type(ready_at) is float and isfinite(ready_at) else None
    delivery = headers.get("delivery_info")
    if delivery is not None and delivery.get("redelivered"):
        return None  # a broker other than Redis has delivered it again
    sent_at = sent_at_of(headers)
    eta = headers.get("eta")
    return sent_at if sent_at is None or not eta else due_at_of(eta, sent_at)


def due_at_of(eta: Any, sent_at: float | None) -> float | None:
    """Return when a task with this ``eta`` is due, at least ``sent_at``; ``None``: it is not a valid time."""
    try:
        return max(datetime.fromisoformat(eta).timestamp(), sent_at or 0.0)
    except (TypeError, ValueError, OverflowError):
        return None


class Unreadable(ValueError):
    """Bytes are not a message."""


def pack(message: dict[str, Any], priority: int) -> tuple[str, bytes]:
    """Return the id and the bytes of a kombu message; the id is empty if it has no usable one."""
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
    """Return the bytes of a task with Celery's ``headers`` and this body, content type and encoding.

    Limits in ``LIMITS_HEADER`` are put into its envelope, where scripts read them.

    Raises:
        ValueError: The id or the name is longer than 255 bytes, or ``LIMITS_HEADER`` is not Base64.
    """
    limits = in_header(headers[LIMITS_HEADER]) if LIMITS_HEADER in headers else b""
    body = _encode((*content, headers, correlation_id, reply_to, exchange, routing_key))
    return seal(headers["id"], headers["task"], priority, body, limits)


def time_of(headers: dict[str, Any], ahead_seconds: Callable[[], float]) -> int:
    """Return when a task with these headers is due, in ms of the engine's time, and convert its expiry to that time.

    Args:
        headers: ``expires`` is changed unless they are signed: then it already is in the engine's time.
        ahead_seconds: Returns how far the engine's time is ahead of this machine's; may ask the server.
    """
    if (expires := headers.get("expires")) and SIGNATURE_HEADER not in headers:
        # The node that claims it converts it to its own time.
        headers["expires"] = shifted(expires, ahead_seconds())
    if eta := headers.get("eta"):
        return ceil((datetime.fromisoformat(eta).timestamp() + ahead_seconds()) * 1_000)
    return 0


def shifted(moment: str, seconds: float) -> str:
    """Return an ISO time shifted by ``seconds``; unchanged if that is less than ``SKEW_SECONDS``."""
    if abs(seconds) < SKEW_SECONDS:
        return moment
    return (datetime.fromisoformat(moment) + timedelta(seconds=seconds)).isoformat()


def _fits(name: Any) -> bool:
    return isinstance(name, str) and len(name.encode()) <= LONGEST_NAME_BYTES


def unpack(envelope: Envelope) -> dict[str, Any]:
    """Return the kombu message in ``envelope``, without a delivery tag.

    Raises:
        Unreadable: It is not a message; the error says why.
    """
    if envelope.version in OURS:
        return _unpack_ours(envelope)
    if len(envelope.body) > FOREIGN_BYTES_MOST:
        raise Unreadable(
            f"it takes {len(envelope.body)} bytes; messages of other programs may take {FOREIGN_BYTES_MOST}"
        )
    return _unpack_json(envelope.body)


def read_arguments(raw: bytes) -> tuple[Any, Any]:
    """Return args and kwargs of the task in ``raw``.

    Raises:
        Unreadable: It is not a task with a JSON body.
    """
    return arguments_in(unseal(raw))


def arguments_in(envelope: Envelope) -> tuple[Any, Any]:
    """Return args and kwargs of the task in ``envelope``; errors are those of ``read_arguments``."""
    body = _body(unpack(envelope))
    return (body.get("args", []), body.get("kwargs", {})) if isinstance(body, dict) else (body[0], body[1])


def read_headers(envelope: Envelope) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the headers of a task and its follow-up tasks, see ``read_follow_ups``.

    Raises:
        Unreadable: It is not a message.
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
    """Return the headers of a kombu message that is otherwise unreadable."""
    if envelope.version in OURS or len(envelope.body) > FOREIGN_BYTES_MOST:
        raise Unreadable("its headers cannot be read")
    try:
        headers = json.loads(envelope.body)["headers"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise Unreadable(f"its headers cannot be read: {error}") from error
    return headers if isinstance(headers, dict) else {}


def read_follow_ups(body: Any, content_type: Any) -> dict[str, Any] | None:
    """Return the follow-up tasks in a body (links, chain, chord), even if its arguments are unreadable.

    ``None``: the follow-up tasks are unreadable, too.
    """
    if content_type != "application/json" or not isinstance(body, str | bytes):
        return None
    try:
        # Not with kombu's decoder: an argument that it cannot decode is the most common reason to be here.
        embed = json.loads(body)[2] or {}
        check_follow_ups(embed)
        return loads(json.dumps(embed))  # type: ignore[no-any-return]  # check_follow_ups accepts only a dict
    except Exception as error:  # noqa: BLE001 - a body may contain anything
        logger.debug("the follow-up tasks of a message cannot be read: %s", error)
        return None


def edit_arguments(raw: bytes, args: list[Any] | None, kwargs: dict[str, Any] | None) -> bytes:
    """Return the message ``raw`` with new ``args`` or ``kwargs``; ``None`` keeps the old ones.

    Raises:
        Unreadable: It is not a task with a JSON body.
    """
    envelope = unseal(raw)
    message = unpack(envelope)
    body: Any = _body(message)
    for number, (name, value) in enumerate({"args": args, "kwargs": kwargs}.items()):
        if value is not None:
            body[name if isinstance(body, dict) else number] = value
    message["body"], message["content-encoding"] = dumps(body), "utf-8"
    message["properties"].pop("body_encoding", None)
    _, blob = pack(message, envelope.priority)
    return blob


def _body(message: dict[str, Any]) -> list[Any] | dict[str, Any]:
    """Return the body of a task: arguments and follow-ups, or the fields of protocol 1."""
    if message.get("content-type") != "application/json":
        raise Unreadable(f"its arguments are {message.get('content-type')}, not JSON")
    try:
        body = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        fields = loads(body)
        if isinstance(fields, dict) and "task" in fields:
            return fields
        args, kwargs, embed = fields
    except Exception as error:  # kombu's decoders of extra types may raise anything
        raise Unreadable(f"its arguments cannot be read: {error}") from error
    return [args, kwargs, embed]


def _unpack_ours(envelope: Envelope) -> dict[str, Any]:
    try:
        body, content_type, encoding, headers, correlation_id, reply_to, exchange, key = _decode(envelope.body)
        if not isinstance(body, str | bytes):
            raise Unreadable(f"its body is neither text nor bytes: {type(body).__name__}")
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
    except Exception as error:  # kombu's decoders of extra types may raise anything
        raise Unreadable(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise Unreadable(f"a JSON {type(message).__name__}, not a message")
    properties = message.get("properties")
    if not isinstance(properties, dict) or not isinstance(message.get("headers"), dict):
        raise Unreadable("no properties or headers")
    if not isinstance(properties.get("delivery_info"), dict):
        raise Unreadable("no delivery_info")
    return message
