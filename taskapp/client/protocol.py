"""Builds Celery's message of a task (protocol 2) at low cost."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]  # missing in the stubs
from numbers import Real
from typing import Any
from uuid import UUID

from celery.utils.saferepr import saferepr
from kombu.compression import compress
from kombu.exceptions import EncodeError
from kombu.serialization import dumps
from kombu.utils.functional import maybe_list
from kombu.utils.json import JSONEncoder
from msgspec import to_builtins

from taskapp.background import emptied_in_child
from taskapp.client.option_checks import times_of
from taskapp.engine.headers import PROPERTIES, BadHeader, check_headers
from taskapp.errors import InvalidPayload, PayloadTooLarge
from taskapp.errors.tasks import BadHeaders, BadMessageProperty, BadOption
from taskapp.queues import HIGHEST_PRIORITY, LOWEST_PRIORITY
from taskapp.results.literal_dicts import SIGN, as_literal

Options = dict[str, Any]

logger = logging.getLogger(__name__)


def _encoder() -> Callable[[Any], str]:
    """Return kombu's JSON encoder; its C part is created once, which ``json`` does for each call: half the cost."""
    kombus = JSONEncoder()
    if c_make_encoder is None:
        return kombus.encode
    # Positional arguments: markers (none), default, string encoder, indent (none), key separator, item separator,
    # sort keys (no), skip keys (no), allow NaN (yes); the same as in ``JSONEncoder``.
    options = None, kombus.default, encode_basestring_ascii, None, ": ", ", ", False, False, True
    chunks = c_make_encoder(*options)
    return lambda content: "".join(chunks(content, 0))


_encode = _encoder()
_LINKED_TO_NOTHING: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_NOTHING_AS_JSON = _encode(_LINKED_TO_NOTHING)
REPR_MOST = 1_024
"""Maximum length of the text shown for the arguments, as in Celery."""
REPR_LEVELS = 3
PLAIN_REPR_MOST = 256
"""Length of JSON up to which ``repr`` is used for arguments, because it cannot be long either."""
ID_OPTIONS = frozenset({"task_id", "root_id", "parent_id", "group_id", "correlation_id", "reply_to"})
"""Options of ``apply_async`` that are ids."""
LONGEST_SECONDS = 10**12


_spare: list[str] = emptied_in_child([])
"""Random digits for further ids: reading them from the system takes a call that lets other threads run. Not inherited
by a forked child: it would create the same ids."""


def new_id() -> str:
    """Return a random UUID (version 4) as text; a third of the cost of ``uuid.uuid4``."""
    try:
        text = _spare.pop()
    except IndexError:
        digits = os.urandom(16 * 64).hex()
        text, *more = (digits[start : start + 32] for start in range(0, len(digits), 32))
        _spare.extend(more)
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"


def arguments_as_json(name: str, args: Any, kwargs: Any, limit_bytes: int) -> str:
    """Return ``[args, kwargs]`` as kombu writes it.

    Raises:
        InvalidPayload: They are not JSON.
        PayloadTooLarge: They take more than ``limit_bytes``.
    """
    text = _json(name, (args, kwargs))
    # Everything is ASCII: other characters are escaped.
    if len(text) > limit_bytes:
        raise PayloadTooLarge(name, len(text), limit_bytes)
    return text


def dumped(name: str, content: Any, serializer: str) -> tuple[str, str, Any]:
    """Return the content type, the encoding and the text or bytes of ``content``.

    Raises:
        InvalidPayload: The serializer cannot write it.
    """
    try:
        content_type, encoding, text = dumps(content, serializer)
    except EncodeError as error:
        raise InvalidPayload(name, f"{error}; only values that {serializer} can represent can be submitted") from error
    return content_type, encoding, text


def check_size(name: str, body: Any, limit_bytes: int) -> None:
    """Check the size of a ``body`` in a format other than JSON: text or bytes.

    Raises:
        PayloadTooLarge: It takes more than ``limit_bytes``.
    """
    size = len(body.encode() if isinstance(body, str) else body)
    if size > limit_bytes:
        raise PayloadTooLarge(name, size, limit_bytes)


def _json(name: str, content: Any) -> str:
    try:
        text = _encode(content)
        return _encode(as_literal(content)) if SIGN in text else text
    except (TypeError, ValueError, RecursionError, EncodeError) as error:
        raise InvalidPayload(name, f"{error}; only values that JSON can represent can be submitted") from error


def embedded(options: Options) -> dict[str, Any] | None:
    """Return the follow-ups in ``options`` with Celery's keys; ``None`` if there are none."""
    get = options.get
    link, link_error, chain, chord = get("link"), get("link_error"), get("chain"), get("chord")
    if link is None and link_error is None and chain is None and chord is None:
        return None
    return {"callbacks": maybe_list(link), "errbacks": maybe_list(link_error), "chain": chain, "chord": chord}


def body(name: str, arguments: str, embed: dict[str, Any] | None) -> str:
    """Return the body of a message from ``arguments_as_json``.

    Raises:
        InvalidPayload: The follow-ups are not JSON.
    """
    return f"{arguments[:-1]}, {_NOTHING_AS_JSON if embed is None else _json(name, embed)}]"


def linked(embed: dict[str, Any] | None) -> dict[str, Any]:
    """Return ``embed``, or Celery's empty follow-ups for ``None``."""
    return dict(_LINKED_TO_NOTHING) if embed is None else embed


def compressed(body: Any, compression: str | None, headers: Options, limit_bytes: int) -> Any:
    """Return ``body``, compressed if ``compression`` is set, which is then recorded in ``headers``.

    Raises:
        PayloadTooLarge: It has more than ``limit_bytes``, so that no node would unpack it.
    """
    if compression:
        if len(body) > limit_bytes:
            raise PayloadTooLarge(headers["task"], len(body), limit_bytes, "TASKAPP_MAX_UNPACKED_BYTES")
        body, headers["compression"] = compress(body, compression)
    return body


def properties(name: str, options: Options) -> dict[str, Any]:
    """Return the AMQP properties in ``options``, ``expiration`` in seconds.

    Raises:
        BadMessageProperty: One of them is invalid.
    """
    stamped = options.get("stamped_headers") or ()
    given = {key: options[key] for key in PROPERTIES if options.get(key) is not None and key not in stamped}
    for key, value in given.items():
        if PROPERTIES[key] is str:
            given[key] = str(value)
        elif not isinstance(value, Real) or not 0 <= float(value) < LONGEST_SECONDS:
            what = "seconds until the task expires" if key == "expiration" else "Unix seconds"
            raise BadMessageProperty(name, key, value, what)
        elif key == "timestamp":
            given[key] = int(float(value))
    return given


def as_sent(properties: Options) -> Options:
    """Return ``properties`` with ``expiration`` as in AMQP: milliseconds as text."""
    expiration = properties.get("expiration")
    if expiration is None or isinstance(expiration, str):
        return properties
    return {**properties, "expiration": str(int(expiration * 1_000))}


def headers(name: str, options: Options, origin: str) -> dict[str, Any]:
    """Return the headers of a task that depend on ``options`` alone; id, arguments and times are set later."""
    get = options.get
    stamped = get("stamped_headers")
    return {
        "lang": "py",
        "task": name,
        "id": None,
        "shadow": get("shadow"),
        "eta": None,
        "expires": None,
        "group": get("group_id"),
        "group_index": get("group_index"),
        "retries": get("retries") or 0,
        "timelimit": [get("time_limit"), get("soft_time_limit")],
        "root_id": get("root_id"),
        "parent_id": get("parent_id"),
        "argsrepr": get("argsrepr"),
        "kwargsrepr": get("kwargsrepr"),
        "origin": get("origin") or origin,
        "ignore_result": get("ignore_result"),
        "replaced_task_nesting": get("replaced_task_nesting") or 0,
        "stamped_headers": stamped,
        "stamps": {header: options[header] for header in stamped or ()},
    }


def check(name: str, headers: Mapping[str, Any]) -> None:
    """Check the ``headers`` of a task of type ``name``, which has no id yet.

    Raises:
        BadHeaders: No node could read one of them.
    """
    try:
        check_headers({**to_builtins(headers, enc_hook=str, builtin_types=(bytes,)), "id": "not yet"})
    except (BadHeader, TypeError, ValueError, RecursionError) as error:
        raise BadHeaders(name, str(error)) from error


def shown(args: Any, kwargs: Any, arguments: str, options: Options) -> tuple[str, str]:
    """Return the texts shown for ``args`` and ``kwargs``: those in ``options``, or short representations.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        arguments: Both as JSON; empty if they are sent in another format.
        options: Options of the submit.
    """
    argsrepr, kwargsrepr = options.get("argsrepr"), options.get("kwargsrepr")
    is_short = 0 < len(arguments) <= PLAIN_REPR_MOST
    return (
        _text(args, is_short=is_short) if argsrepr is None else argsrepr,
        _text(kwargs, is_short=is_short) if kwargsrepr is None else kwargsrepr,
    )


def _text(value: Any, *, is_short: bool) -> str:
    if not value:
        return "{}" if isinstance(value, Mapping) else "()"
    if is_short:
        try:
            text = repr(value)
        except Exception:  # noqa: BLE001 - raised by the class of an argument; ``saferepr`` handles that
            text = ""
        if text and len(text) <= REPR_MOST:
            return text
    # Headers are UTF-8, which has no lone surrogates.
    return saferepr(value, REPR_MOST, maxlevels=REPR_LEVELS).encode(errors="backslashreplace").decode()


def check_arguments(args: Any, kwargs: Any) -> None:
    """Check the types of ``args`` and ``kwargs``.

    Raises:
        TypeError: ``args`` is not a list or tuple, or ``kwargs`` is not a mapping.
    """
    if not isinstance(args, list | tuple):
        raise TypeError("task args must be a list or tuple")
    if type(kwargs) is not dict and not isinstance(kwargs, Mapping):
        raise TypeError("task keyword arguments must be a mapping")


def priority_of(priority: Any) -> int:
    """Return ``priority`` clamped to 0 to 9, like kombu; 0 if it is not a number."""
    try:
        return max(LOWEST_PRIORITY, min(HIGHEST_PRIORITY, int(priority or 0)))
    except (TypeError, ValueError):
        return LOWEST_PRIORITY


def set_times(name: str, headers: dict[str, Any], options: Options, now: datetime) -> None:
    """Set due time and expiry in ``headers`` according to ``options``; errors are those of ``times_of``."""
    due, end = times_of(name, options, now)
    headers["eta"] = due and due.isoformat()
    headers["expires"] = end and end.isoformat()
    if end is not None and end < now:
        logger.warning("task %s expired %s ago, before it was sent", headers["id"], now - end)


def with_texts_of_ids(name: str, options: Options) -> Options:
    """Return ``options`` with each id that is a ``uuid.UUID`` as text.

    Raises:
        BadOption: An id is neither text nor a ``uuid.UUID``.
    """
    given = {option: options[option] for option in ID_OPTIONS & options.keys() if options[option] is not None}
    return {**options, **{option: text_of_id(name, option, value) for option, value in given.items()}}


def text_of_id(name: str, option: str, value: Any) -> str:
    """Return an id as text; errors are those of ``with_texts_of_ids``."""
    if isinstance(value, str):
        return value
    if isinstance(value, UUID):
        return str(value)
    raise BadOption(name, option, value, "use a string or a uuid.UUID")


def without_none(options: Options) -> Options:
    """Return the options that are not ``None``."""
    return {key: value for key, value in options.items() if value is not None}
