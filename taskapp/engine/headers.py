"""The single table of checks for the headers of a task's message, whichever program wrote it.

A node checks a message after claiming it, before anything acts on its headers. Headers that are not
in the table belong to the user and may hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

import msgspec
from msgspec import UNSET, Meta, UnsetType

LONGEST_NAME = 255
SHOWN_MOST = 120
COUNT_MOST = 2**31 - 1
LIMIT_MOST_SECONDS = 100 * 365 * 86_400.0

Name = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
Text = str | None
Count = Annotated[int, Meta(ge=0, le=COUNT_MOST)]
Seconds = Annotated[float, Meta(ge=0, le=LIMIT_MOST_SECONDS)] | None
Moment = Annotated[float, Meta(ge=0, le=1e11)] | None
"""Unix seconds."""

PROPERTIES: dict[str, Any] = {
    "message_id": str,
    "app_id": str,
    "user_id": str,
    "cluster_id": str,
    "type": str,
    "timestamp": int,
    "expiration": Annotated[str, Meta(pattern=r"^[0-9]{1,16}\Z")],
}
"""AMQP properties that a task may be sent with; ``expiration`` is milliseconds as text, as in AMQP."""


def _struct(name: str, checks: Mapping[str, Any], **options: Any) -> Any:
    fields = [(header, check | UnsetType, UNSET) for header, check in checks.items()]
    return msgspec.defstruct(name, fields, rename=dict(zip(checks, checks, strict=True)), gc=False, **options)


CHECKS: dict[str, Any] = {
    "id": Name,
    "task": Name,
    "lang": Text,
    "shadow": Text,
    "eta": Text,
    "expires": Text,
    "group": Text,
    "group_index": Count | None,
    "retries": Count,
    "timelimit": tuple[Seconds, Seconds] | None,
    "root_id": Text,
    "parent_id": Text,
    "argsrepr": Text,
    "kwargsrepr": Text,
    "origin": Text,
    "ignore_result": bool | int | None,
    "replaced_task_nesting": Count,
    "stamped_headers": list[str] | None,
    "stamps": dict[str, Any] | None,
    "compression": Text,
    "reply_to": Text,
    "correlation_id": Text,
    "headers": dict[str, Any] | None,
    "time_limit": Seconds,
    "soft_time_limit": Seconds,
    "taskset": Text,
    "taskapp_schedule": Name | None,
    "taskapp_copy": Text,
    "taskapp_due_at": Moment,
    "taskapp_ready_at": Moment,
    "taskapp_sent_at": Moment,
    "taskapp_properties": _struct("Properties", PROPERTIES, forbid_unknown_fields=True),
}
"""Type of each header; all headers are optional."""

NEVER_NULL = frozenset({"retries", "replaced_task_nesting"})
"""Counts that tasks calculate with."""

SHOWN = frozenset({"argsrepr", "kwargsrepr"})
"""Texts of arguments; Celery keeps in them whatever a string contains."""

HIDING = (
    "_children", "_filter_x_death_headers", "_get_custom_headers", "_given", "_protected", "as_execution_options",
    "as_given", "asked_max_retries", "children", "clear", "get", "update",
)  # fmt: skip
"""Attributes of ``self.request`` that a header of this name would hide; such headers are refused."""

FOLLOW_UPS: dict[str, Any] = {
    "callbacks": list[dict[str, Any] | str] | None,
    "errbacks": list[dict[str, Any] | str] | None,
    "chain": list[dict[str, Any]] | None,
    "chord": dict[str, Any] | None,
}
"""Follow-up tasks in the body of a message. A header with one of these names is checked the same way."""

FollowUps: Any = TypedDict("FollowUps", FOLLOW_UPS, total=False)  # type: ignore[misc]  # fields from the table
"""The same as a type for decoders, which check it at no extra cost."""


_WRONG = (msgspec.ValidationError, UnicodeEncodeError, RecursionError)
_Nothing = Annotated[int, Meta(ge=1, le=0)]
_ALL: dict[str, Any] = {**CHECKS, **FOLLOW_UPS, **dict.fromkeys(HIDING, _Nothing)}
_convert = msgspec.convert
_Headers = _struct("Headers", _ALL)
_FollowUps = _struct("FollowUps", FOLLOW_UPS)


class BadHeader(ValueError):
    """A header has an invalid value."""


def check_headers(headers: Mapping[str, Any]) -> None:
    """Check all headers of a message.

    Raises:
        BadHeader: Names the first invalid header and the problem.
    """
    try:
        _convert(headers, _Headers)
    except _WRONG as error:
        raise BadHeader(_words(error, "header")) from error


def check_foreign_headers(headers: dict[str, Any]) -> None:
    """Check the headers of a message that another program wrote; errors are those of ``check_headers``.

    Removes counts that are null, as some programs write them, and escapes lone surrogates in texts that are only shown.
    Checks that other texts are valid Unicode, which MessagePack guarantees for messages of taskapp.
    """
    for header in NEVER_NULL & headers.keys():
        if headers[header] is None:
            del headers[header]
    escape_shown(headers)
    check_headers(headers)
    _check_texts(headers)


def escape_shown(headers: dict[str, Any]) -> None:
    """Escape lone surrogates in the texts of ``headers`` that are only shown: UTF-8 has none."""
    for header in SHOWN & headers.keys():
        if isinstance(text := headers[header], str) and not text.isascii():
            headers[header] = text.encode(errors="backslashreplace").decode()


def _check_texts(headers: Mapping[str, Any]) -> None:
    for header in headers.keys() & CHECKS:
        text = headers[header]
        try:
            if isinstance(text, str) and not text.isascii():
                text.encode()
        except UnicodeEncodeError as error:
            raise BadHeader(f"header {header!r}: {error.reason}") from error


def check_follow_ups(embed: Mapping[str, Any]) -> None:
    """Check the follow-up tasks in a body; errors are those of ``check_headers``."""
    try:
        _convert(embed, _FollowUps)
    except _WRONG as error:
        raise BadHeader(_words(error, "follow-up")) from error


def check_signature(signature: Any) -> None:
    """Check the signature of one follow-up task before it is sent.

    Raises:
        BadHeader: It is not a signature.
    """
    known: Mapping[Any, Any] = signature if isinstance(signature, Mapping) else {}
    get = known.get
    if not isinstance(get("task"), str):
        problem = "its task name is not a string"
    elif not isinstance(get("options"), Mapping):
        problem = "its options are not a mapping"
    elif not get("immutable") and not (isinstance(get("args"), list | tuple) and isinstance(get("kwargs"), Mapping)):
        problem = "its args are not a list, or its kwargs are not a mapping"
    else:
        return
    shown = repr(signature)[:SHOWN_MOST] if type(signature) in (dict, str) else type(signature).__name__
    raise BadHeader(f"follow-up {shown} is not a task signature: {problem}")


def sound_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return only the valid headers, for use when the message itself cannot be used."""
    return {header: value for header, value in headers.items() if _is_sound(header, value)}


def _is_sound(header: Any, value: Any) -> bool:
    if not isinstance(header, str):
        return False
    try:
        _convert(value, _ALL.get(header, Any))
        _check_texts({header: value})
    except (*_WRONG, BadHeader):
        return False
    return True


def _words(error: Exception, what: str) -> str:
    problem, _, place = str(error).partition(" - at `")
    if not place or place.startswith("key`"):
        return f"{what}s: {problem}"
    header = place.removeprefix("$.").removesuffix("`")
    if header in HIDING:
        return f"{what} {header!r}: the name would hide an attribute of the task's request; choose another"
    return f"{what} {header!r}: {problem[:1].lower()}{problem[1:]}"
