"""Messages of which one header or property is what nobody would send: raw bytes, as they would lie in a ready list."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from taskapp.engine.envelope import seal
from taskapp.engine.headers import CHECKS, FOLLOW_UPS, HIDING, LONGEST_NAME

TASK = "faults.quiet"
HEADERS = (*CHECKS, *FOLLOW_UPS, *HIDING, "delivery_info", "properties", "hostname", "args", "kwargs", "traceparent")
PROPERTIES = ("body", "content_type", "content_encoding", "headers", "correlation_id", "reply_to", "exchange", "key")
FOREIGN_PROPERTIES = ("correlation_id", "reply_to", "delivery_mode", "priority", "delivery_info", "body_encoding")
FOREIGN_PARTS = ("body", "content-type", "content-encoding", "headers", "properties")


def nested(levels: int, *, inside: Any = 1) -> Any:
    """Return a list in a list in a list."""
    for _ in range(levels):
        inside = [inside]
    return inside


JSON_VALUES: dict[str, Any] = {
    "null": None, "true": True, "false": False, "zero": 0, "one": 1, "minus one": -1, "a large number": 2**62,
    "a fraction": 0.5, "nan": float("nan"), "infinity": float("inf"), "an empty text": "", "a text": "forged",
    "a long text": "x" * 70_000, "a text of zeros": "a\0b\0", "a text of lines": "a\r\nb \x1b[31m", "a list": [],
    "a list of lists": [[1, [2]], []], "a list of texts": ["a", "b"], "a list of nothing": [None, None],
    "an object": {}, "an object of objects": {"task": {"id": []}, "get": 1, "lease": "x", "deliveries": "y"},
    "nested": nested(900), "an error": {"exc_type": "SystemExit", "exc_module": "builtins"},
    "an instant": "0001-01-01T00:00:00+00:00", "limits": [1e300, -1.0],
}  # fmt: skip
PACKED_VALUES: dict[str, Any] = {
    **JSON_VALUES, "bytes": b"\xff\xfe\x00", "a time": datetime(2001, 1, 1, tzinfo=UTC),
    "an extension": msgspec.msgpack.Ext(5, b"forged"), "an object of numbers": {1: 2, None: 3},
    "the largest number": 2**64 - 1,
}  # fmt: skip
FOREIGN_VALUES: dict[str, Any] = {
    **JSON_VALUES, "half a character": "a\udce9", "a number of 5,000 digits": int("9" * 4_000),
    "a type": {"__type__": "uuid", "__value__": 5}, "bytes": {"__type__": "bytes", "__value__": "=="},
}  # fmt: skip


@dataclass(frozen=True)
class Forged:
    """One forged message."""

    what: str
    raw: bytes
    id: str | None
    """What can be read of its id; ``None``: nothing."""
    has_result: bool = True
    """Whether it is to have a result, whatever becomes of it; it may ask for none."""


def forged() -> Iterator[Forged]:
    """Yield all there are, some thousand: each header and property by each value, one by one."""
    for header in HEADERS:
        for kind, value in PACKED_VALUES.items():
            yield _sealed(f"header {header} is {kind}", headers={header: value})
    for position, name in enumerate(PROPERTIES):
        for kind, value in PACKED_VALUES.items():
            yield _sealed(f"property {name} is {kind}", changed=(position, value))
    for name in (*FOLLOW_UPS, "id", "task", "properties", "delivery_info", "hostname", "get"):
        for kind, value in JSON_VALUES.items():
            yield _sealed(f"{name} in the body is {kind}", embed={name: value})
    yield from _foreign()


def _headers(task_id: str) -> dict[str, Any]:
    return {
        "lang": "py", "task": TASK, "id": task_id, "shadow": None, "eta": None, "expires": None, "group": None,
        "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": task_id, "parent_id": None,
        "argsrepr": "()", "kwargsrepr": "{}", "origin": "1@faults", "ignore_result": False,
        "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {}, "taskapp_sent_at": 1.0,
    }  # fmt: skip


def _sealed(
    what: str, *, headers: dict[str, Any] | None = None, changed: tuple[int, Any] | None = None,
    embed: dict[str, Any] | None = None,
) -> Forged:  # fmt: skip
    task_id = str(uuid.uuid4())
    body = json.dumps([[], {}, {**dict.fromkeys(FOLLOW_UPS), **(embed or {})}])
    all_headers = {**_headers(task_id), **(headers or {})}
    parts: list[Any] = [body, "application/json", "utf-8", all_headers, task_id, str(uuid.uuid4()), "", "default"]
    if changed is not None:
        parts[changed[0]] = changed[1]
    raw = seal(task_id, TASK, 0, msgspec.msgpack.encode(parts))
    return Forged(f"ours: {what}", raw, task_id, not all_headers.get("ignore_result"))


def _foreign() -> Iterator[Forged]:
    for kind, value in FOREIGN_VALUES.items():
        for header in HEADERS:
            if header != "eta":  # one that is far ahead is to wait
                yield _of_kombu(f"header {header} is {kind}", {header: value})
        for name in FOREIGN_PROPERTIES:
            yield _of_kombu(f"property {name} is {kind}", properties={name: value})
        for name in FOREIGN_PARTS:
            yield _of_kombu(f"its {name} is {kind}", parts={name: value})


def _of_kombu(
    what: str, headers: dict[str, Any] | None = None, properties: dict[str, Any] | None = None,
    parts: dict[str, Any] | None = None,
) -> Forged:  # fmt: skip
    task_id = str(uuid.uuid4())
    message = {
        "body": json.dumps([[], {}, dict.fromkeys(FOLLOW_UPS)]),
        "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {**_headers(task_id), **(headers or {})},
        "properties": {
            "correlation_id": task_id, "reply_to": str(uuid.uuid4()), "delivery_mode": 2, "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": "default"}, "delivery_tag": str(uuid.uuid4()),
            **(properties or {}),
        },
    }  # fmt: skip
    message |= parts or {}
    known: Any = message["headers"].get("id") if isinstance(message["headers"], dict) else None
    is_known = isinstance(known, str) and 0 < len(known) <= LONGEST_NAME and "\udce9" not in known
    has_result = not (headers or {}).get("ignore_result")
    return Forged(f"kombu's: {what}", json.dumps(message).encode(), known if is_known else None, has_result)
