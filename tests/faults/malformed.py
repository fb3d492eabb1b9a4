"""Messages nobody should send, as they would lie in a ready list: raw bytes."""

from __future__ import annotations

import base64
import copy
import json
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from taskapp.engine.envelope import seal

KIB = 1024
MIB = KIB * KIB
NESTING = 60_000
NOT_UTF8 = b"\xff\xfe\x00\x01\x80taskapp\x00"
UNKNOWN_TASK = "faults.nobody_has_it"


@dataclass(frozen=True)
class Malformed:
    """One kind of malformed message."""

    kind: str
    raw: bytes
    may_run: bool = False
    """Whether it holds all that is needed to run the task, so that running it is as good as burying it."""
    buried_as: bytes | None = None
    """How it lies among the dead letters, where that is not as it was sent."""


def message(**headers: Any) -> dict[str, Any]:
    """Return a good message as stock Celery 5 puts it into Redis, with some other ``headers``."""
    task_id = str(uuid.uuid4())
    body = json.dumps([[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    return {
        "body": _base64(body.encode()),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": "faults.note", "id": task_id, "root_id": task_id, "parent_id": None, "group": None,
            "shadow": None, "eta": None, "expires": None, "retries": 0, "timelimit": [None, None], "argsrepr": "()",
            "kwargsrepr": "{}", "origin": "1@faults", "ignore_result": False, **headers,
        },
        "properties": {
            "correlation_id": task_id, "reply_to": str(uuid.uuid4()), "delivery_mode": 2, "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": "default"}, "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }  # fmt: skip


def kinds(huge_bytes: int) -> list[Malformed]:
    """Return one of each kind; ``huge_bytes`` is the length of what is too long."""
    return [*_no_messages(), *_wrong_frames(), *_wrong_headers(), *_wrong_bodies(), *_huge(huge_bytes), *_sealed()]


def _changed(kind: str, change: Callable[[dict[str, Any]], object], *, may_run: bool = False) -> Malformed:
    changed = copy.deepcopy(message())
    change(changed)
    return Malformed(kind, json.dumps(changed).encode(), may_run)


def _no_messages() -> list[Malformed]:
    return [
        Malformed("garbage bytes", NOT_UTF8),
        Malformed("not JSON", b"hello"),
        Malformed("a JSON array", b"[1, 2, 3]"),
        Malformed("a JSON number", b"42"),
        Malformed("JSON null", b"null"),
        Malformed("empty", b""),
        Malformed("an empty object", b"{}"),
        Malformed("cut short", json.dumps(message()).encode()[:200]),
        Malformed("nested too deep", b"[" * NESTING + b"]" * NESTING),
        Malformed("nested too deep, objects", b'{"a":' * NESTING + b"1" + b"}" * NESTING),
    ]


def _wrong_frames() -> list[Malformed]:
    return [
        _changed("null headers", lambda m: m.update(headers=None)),
        _changed("empty headers", lambda m: m.update(headers={})),
        _changed("headers are a list", lambda m: m.update(headers=["task", "faults.note"])),
        _changed("no headers", lambda m: m.pop("headers")),
        _changed("no properties", lambda m: m.pop("properties")),
        _changed("properties are a list", lambda m: m.update(properties=[])),
        _changed("no delivery info", lambda m: m["properties"].pop("delivery_info")),
        _changed("no delivery tag", lambda m: m["properties"].pop("delivery_tag"), may_run=True),
        _changed("no body", lambda m: m.pop("body")),
        _changed("bad base64", lambda m: m.update(body="!!! not base64 !!!")),
        _changed("unknown body encoding", lambda m: m["properties"].update(body_encoding="klingon")),
        _changed("pickle content type", lambda m: m.update({"content-type": "application/x-python-serialize"})),
        _changed("unknown content type", lambda m: m.update({"content-type": "application/klingon"})),
        _changed("content type is a number", lambda m: m.update({"content-type": 7})),
        # JSON says itself how it is encoded.
        _changed("unknown content encoding", lambda m: m.update({"content-encoding": "klingon"}), may_run=True),
        _changed("content encoding is a number", lambda m: m.update({"content-encoding": 7})),
    ]


def _wrong_headers() -> list[Malformed]:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("bad eta", {"eta": "tomorrow"}),
        ("eta is a number", {"eta": 1_700_000_000}),
        ("bad expires", {"expires": "never"}),
        ("expires is a list", {"expires": [1]}),
        ("bad timelimit", {"timelimit": "soon"}),
        ("timelimit of words", {"timelimit": ["soon", "later"]}),
        ("bad retries", {"retries": "many"}),
        ("negative retries", {"retries": -1}),
        ("null id", {"id": None}),
        ("id is a list", {"id": ["a"]}),
        ("null task", {"task": None}),
        ("task is an object", {"task": {"name": "faults.note"}}),
        ("unknown task", {"task": UNKNOWN_TASK}),
        ("stamps are a number", {"stamped_headers": 1, "stamps": 1}),
    ]
    return [Malformed(kind, json.dumps(message(**headers)).encode()) for kind, headers in wrong]


def _wrong_bodies() -> list[Malformed]:
    bodies = [
        ("body not JSON", b"hello"),
        ("body not UTF-8", NOT_UTF8),
        ("body is null", b"null"),
        ("body is an object", b'{"args": []}'),
        ("body too short", b"[[]]"),
        ("arguments are a number", b"[1, {}, {}]"),
        ("wrong arguments", b'[["one", "too", "many"], {}, {}]'),
        ("unknown keyword argument", b'[[], {"colour": "red"}, {}]'),
        ("body nested too deep", b"[[" + b"[" * NESTING + b"]" * NESTING + b"], {}, {}]"),
    ]
    return [Malformed(kind, json.dumps(message() | {"body": _base64(body)}).encode()) for kind, body in bodies]


def _base64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def _huge(length: int) -> list[Malformed]:
    title = f"{length // MIB} MiB"
    return [
        # Heavy, but all there: it may run.
        Malformed(f"a header of {title}", json.dumps(message(burden="x" * length)).encode(), may_run=True),
        Malformed(f"a task name of {title}", json.dumps(message(task="x" * length)).encode()),
        Malformed(f"garbage of {title}", b"\x00" * length),
    ]


def _sealed() -> list[Malformed]:
    """Return messages that look like the engine's own."""
    name = "faults.note"
    good = seal(str(uuid.uuid4()), name, 0, msgspec.msgpack.encode((b"[[], {}, {}]",)))
    return [
        Malformed("our header cut short", good[:12]),
        Malformed("our header, another shape behind it", good),
        Malformed("our header, garbage behind it", seal(str(uuid.uuid4()), name, 0, NOT_UTF8)),
        Malformed("our header, nothing behind it", seal(str(uuid.uuid4()), name, 0, b"")),
        Malformed("our header with priority 77", good[:1] + b"\x4d" + good[2:]),
        Malformed("a header of a newer format", b"\x03" + good[1:]),
        Malformed("our header with an id not UTF-8", struct.pack(">BBHHB", 1, 0, 0, 0, 4) + b"\xff" * 4 + good[43:]),
        # The engine wraps foreign bytes that came back once, and takes the wrapper off again.
        Malformed("a wrapper around garbage", struct.pack(">BBHHBB", 2, 0, 1, 1, 0, 0) + NOT_UTF8, buried_as=NOT_UTF8),
    ]
