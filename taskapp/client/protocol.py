"""What Celery says of a task in its message (protocol 2), made for little."""

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
from kombu.utils.functional import maybe_list
from kombu.utils.json import JSONEncoder
from msgspec import to_builtins

from taskapp.client.option_checks import times_of
from taskapp.engine.headers import PROPERTIES, BadHeader, check_headers
from taskapp.errors import InvalidPayload, PayloadTooLarge
from taskapp.errors.tasks import BadHeaders, BadMessageProperty, BadOption
from taskapp.queues import HIGHEST_PRIORITY, LOWEST_PRIORITY
from taskapp.results.literal_dicts import SIGN, as_literal
from taskapp.settings import get_settings

Options = dict[str, Any]

logger = logging.getLogger(__name__)


def _encoder() -> Callable[[Any], str]:
    """Return kombu's JSON encoder; with C made once, which ``json`` makes anew for each call: half of the work."""
    kombus = JSONEncoder()
    if c_make_encoder is None:
        return kombus.encode
    # Arguments have no names here: no mark of what is seen, the way strings are written, no indent, how keys and
    # values are set apart, unsorted, no key skipped, NaN allowed: as ``JSONEncoder`` itself does.
    options = None, kombus.default, encode_basestring_ascii, None, ": ", ", ", False, False, True
    chunks = c_make_encoder(*options)
    return lambda content: "".join(chunks(content, 0))


_encode = _encoder()
_LINKED_TO_NOTHING: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_NOTHING_AS_JSON = _encode(_LINKED_TO_NOTHING)
REPR_MOST = 1_024
"""How long what is shown of the arguments may be, as in Celery."""
REPR_LEVELS = 3
PLAIN_REPR_MOST = 256
"""Arguments whose JSON is no longer than this are shown by ``repr``: it cannot be long either."""
ID_OPTIONS = frozenset({"task_id", "root_id", "parent_id", "group_id", "correlation_id", "reply_to"})
"""Options of ``apply_async`` that name something by an id."""
LONGEST_SECONDS = 10**12


_spare: list[str] = []
"""Random digits for ids to come: each read from the system costs a call, which lets other threads in between."""
# Or parent and child would give the same ids.
os.register_at_fork(after_in_child=_spare.clear)


def new_id() -> str:
    """Return a random UUID (version 4) as text; a third of the work of ``uuid.uuid4``."""
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
    # All ASCII: everything else is escaped.
    if len(text) > limit_bytes:
        raise PayloadTooLarge(name, len(text), limit_bytes)
    return text


def _json(name: str, content: Any) -> str:
    try:
        text = _encode(content)
        return _encode(as_literal(content)) if SIGN in text else text
    except (TypeError, ValueError, RecursionError, EncodeError) as error:
        raise InvalidPayload(name, f"{error}; only what JSON can hold can be submitted") from error


def embedded(options: Options) -> dict[str, Any] | None:
    """Return what follows a task whose ``options`` name anything of it; the keys are Celery's."""
    get = options.get
    link, link_error, chain, chord = get("link"), get("link_error"), get("chain"), get("chord")
    if link is None and link_error is None and chain is None and chord is None:
        return None
    return {"callbacks": maybe_list(link), "errbacks": maybe_list(link_error), "chain": chain, "chord": chord}


def body(name: str, arguments: str, embed: dict[str, Any] | None) -> str:
    """Return the body of a message from ``arguments_as_json``.

    Raises:
        InvalidPayload: What follows the task is not JSON.
    """
    return f"{arguments[:-1]}, {_NOTHING_AS_JSON if embed is None else _json(name, embed)}]"


def linked(embed: dict[str, Any] | None) -> dict[str, Any]:
    """Return ``embed``, or what stands for nothing."""
    return dict(_LINKED_TO_NOTHING) if embed is None else embed


def compressed(body: Any, compression: str | None, headers: Options) -> Any:
    """Return ``body`` compressed if that is asked for, and note it in ``headers``.

    Raises:
        PayloadTooLarge: No node would unpack it.
    """
    if compression:
        limit_bytes = get_settings().max_unpacked_bytes
        if len(body) > limit_bytes:
            raise PayloadTooLarge(headers["task"], len(body), limit_bytes, "TASKAPP_MAX_UNPACKED_BYTES")
        body, headers["compression"] = compress(body, compression)
    return body


def properties(name: str, options: Options) -> dict[str, Any]:
    """Return the properties of AMQP that ``options`` name, ``expiration`` in seconds.

    Raises:
        BadMessageProperty: One of them has no meaning.
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
    """Return ``properties`` with ``expiration`` as AMQP has it: milliseconds, as text."""
    expiration = properties.get("expiration")
    if expiration is None or isinstance(expiration, str):
        return properties
    return {**properties, "expiration": str(int(expiration * 1_000))}


def headers(name: str, options: Options, origin: str) -> dict[str, Any]:
    """Return the headers of a task as far as ``options`` say them; its id, arguments and times are still to come."""
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
    """Check what ``options`` made of the headers of a task of type ``name``, before an id.

    Raises:
        BadHeaders: No node could read one of them.
    """
    try:
        check_headers({**to_builtins(headers, enc_hook=str, builtin_types=(bytes,)), "id": "not yet"})
    except (BadHeader, TypeError, ValueError, RecursionError) as error:
        raise BadHeaders(name, str(error)) from error


def shown(args: Any, kwargs: Any, arguments: str, options: Options) -> tuple[str, str]:
    """Return what is shown of the arguments: what ``options`` say, or a short text of them."""
    argsrepr, kwargsrepr = options.get("argsrepr"), options.get("kwargsrepr")
    is_short = len(arguments) <= PLAIN_REPR_MOST
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
        except Exception:  # noqa: BLE001 - of an argument, by its own class; Celery's way is prepared for it
            text = ""
        if text and len(text) <= REPR_MOST:
            return text
    return saferepr(value, REPR_MOST, maxlevels=REPR_LEVELS)


def check_arguments(args: Any, kwargs: Any) -> None:
    """Refuse what cannot be passed on.

    Raises:
        TypeError: ``args`` is no list or tuple, or ``kwargs`` no mapping.
    """
    if not isinstance(args, list | tuple):
        raise TypeError("task args must be a list or tuple")
    if type(kwargs) is not dict and not isinstance(kwargs, Mapping):
        raise TypeError("task keyword arguments must be a mapping")


def priority_of(priority: Any) -> int:
    """Return ``priority`` brought into 0 to 9, as kombu does; what is no number is 0."""
    try:
        return max(LOWEST_PRIORITY, min(HIGHEST_PRIORITY, int(priority or 0)))
    except (TypeError, ValueError):
        return LOWEST_PRIORITY


def set_times(name: str, headers: dict[str, Any], options: Options, now: datetime) -> None:
    """Put into ``headers`` when a task is due and when it expires, as ``options`` ask for it; errors: ``times_of``."""
    due, end = times_of(name, options, now)
    headers["eta"] = due and due.isoformat()
    headers["expires"] = end and end.isoformat()
    if end is not None and end < now:
        logger.warning("task %s expired %s ago, before it was sent", headers["id"], now - end)


def with_texts_of_ids(name: str, options: Options) -> Options:
    """Return ``options`` with ids that were given as ``uuid.UUID`` as texts.

    Raises:
        BadOption: One is something else.
    """
    given = {option: options[option] for option in ID_OPTIONS & options.keys() if options[option] is not None}
    return {**options, **{option: text_of_id(name, option, value) for option, value in given.items()}}


def text_of_id(name: str, option: str, value: Any) -> str:
    """Return an id as messages and results have it; errors as with ``with_texts_of_ids``."""
    if isinstance(value, str):
        return value
    if isinstance(value, UUID):
        return str(value)
    raise BadOption(name, option, value, "give a text or a uuid.UUID")


def without_none(options: Options) -> Options:
    """Return the options that say something."""
    return {key: value for key, value in options.items() if value is not None}
