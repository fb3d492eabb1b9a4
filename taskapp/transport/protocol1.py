"""Reads messages of Celery's protocol 1, whose body contains what protocol 2 has in headers, as those of protocol 2.

Clients that set ``task_protocol = 1``, Celery 3, and many clients in other languages write them. Bodies in other
formats than JSON and MessagePack are read only if the app accepts these, and otherwise go to the dead letters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from kombu import serialization
from kombu.serialization import dumps, loads

_registry: Any = serialization.registry  # type: ignore[attr-defined]  # missing in the stubs

HARMLESS = frozenset({"application/json", "application/x-msgpack"})
"""Content types that are cheap to read and run no code; the app may still refuse them later."""
HEADERS = (
    "task", "id", "root_id", "parent_id", "group", "group_index", "shadow", "eta", "expires", "retries", "timelimit",
    "argsrepr", "kwargsrepr", "origin", "lang",
)  # fmt: skip


def read_as_protocol_2(message: Any, accepted: Collection[str] = ()) -> None:
    """Give ``message`` the headers and the body of protocol 2 if it is one of protocol 1; leave others as they are.

    Args:
        message: The message as received.
        accepted: Content types that the app accepts, and that may run code when they are read.
    """
    readable = {*HARMLESS, *accepted}
    if message.errors or message.content_type not in readable:
        return
    try:
        fields = loads(message.body, message.content_type, message.content_encoding, accept=readable)
    except Exception:  # noqa: BLE001 - a body may contain anything; the next reader reports what is wrong
        return
    if not isinstance(fields, Mapping) or not ({"task", "id"} <= fields.keys()):
        return
    message.headers = {**_headers(fields), **message.headers}
    embed = {name: fields.get(name) for name in ("callbacks", "errbacks", "chord")} | {"chain": None}
    body = fields.get("args", ()), fields.get("kwargs", {}), embed
    _, message.content_encoding, message.body = dumps(body, _registry.type_to_name[message.content_type])


def _headers(fields: Mapping[str, Any]) -> dict[str, Any]:
    headers = {name: fields[name] for name in HEADERS if fields.get(name) is not None}
    if (group := fields.get("taskset")) is not None:
        headers.setdefault("group", group)
    if fields.get("utc", True):
        headers |= {name: _in_utc(headers[name]) for name in ("eta", "expires") if name in headers}
    return headers


def _in_utc(moment: Any) -> Any:
    """Return an ISO time with a time zone; protocol 1 leaves it out."""
    try:
        at = datetime.fromisoformat(moment)
    except (TypeError, ValueError):
        return moment  # checked with the other headers
    return moment if at.tzinfo is not None else at.replace(tzinfo=UTC).isoformat()
