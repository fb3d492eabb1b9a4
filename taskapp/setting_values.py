"""How what is given for a setting becomes its value, by the setting's type and limits.

Given are the text of an environment variable, or a value from an app's own configuration. Nothing here shows it: an
error says what is expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field
from math import isfinite
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

INTEGER = re.compile(r"[+-]?\d+(_\d+)*(\.0+)?", re.ASCII)
LONGEST_INTEGER = 4_300
"""Digits; Python converts no more."""
FLOAT_MOST = 2.0**63
"""A larger float is not taken for an integer."""
FLAGS = {
    **dict.fromkeys(("1", "on", "t", "true", "y", "yes"), True),
    **dict.fromkeys(("0", "off", "f", "false", "n", "no"), False),
}


def setting(
    default: Any = MISSING, *, factory: Any = MISSING, ge: int | None = None, gt: int | None = None,
    le: int | None = None, check: Callable[[Any], None] | None = None,
) -> Any:  # fmt: skip
    """Declare a field of ``Settings``.

    Args:
        default: The value without a variable.
        factory: Called for the default instead.
        ge: Minimum.
        gt: The value must be greater.
        le: Maximum.
        check: Called with a value that is given and not empty; raises ``ValueError``.
    """
    return field(default=default, default_factory=factory, metadata={"ge": ge, "gt": gt, "le": le, "check": check})


def value_of(given: Any, kind: Any, limits: Mapping[str, Any]) -> Any:
    """Return the value of a setting.

    Args:
        given: Text, or a value.
        kind: Type of the setting; for an optional one, empty text is ``None``.
        limits: As given to ``setting``.

    Raises:
        ValueError: It is not of that type, or beyond a limit.
    """
    if NoneType in (choices := get_args(kind)):
        if given is None or given == "":
            return None
        [kind] = [each for each in choices if each is not NoneType]
    value = _read(given, kind)
    _check_limits(value, limits)
    if (check := limits.get("check")) is not None:
        check(value)
    return value


def _read(given: Any, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        return _parts(given)
    if get_origin(kind) is Literal:
        return _one_of(given, get_args(kind))
    if kind is Path:
        if not isinstance(given, str | PathLike):
            raise ValueError(f"input is not a valid path for {Path}")
        return Path(given)
    if kind in NUMBERS:
        if not isinstance(given, str):
            return _number_of(given, kind)
        _check_encoding(given)
        return NUMBERS[kind](given)
    if isinstance(given, kind):
        return given
    if not isinstance(given, str):
        raise ValueError("input should be a valid string")
    return kind(given)


def _parts(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        return tuple(part.strip() for part in given.split(",") if part.strip())
    if not isinstance(given, list | tuple | set | frozenset):
        raise ValueError("input should be a valid tuple")
    if not all(isinstance(part, str) for part in given):
        raise ValueError("input should be a valid string")
    return tuple(given)


def _one_of(given: Any, choices: tuple[str, ...]) -> str:
    if isinstance(given, str):
        _check_encoding(given)
    if given not in choices:
        *others, last = map(repr, choices)
        raise ValueError(f"input should be {', '.join(others)} or {last}")
    return str(given)


def _check_encoding(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("input should be a valid string, unable to parse raw data as a unicode string") from None


def _flag(text: str) -> bool:
    if (flag := FLAGS.get(text.lower())) is None:
        raise ValueError("input should be a valid boolean, unable to interpret input")
    return flag


def _integer(text: str) -> int:
    if len(text) > LONGEST_INTEGER:
        raise ValueError("unable to parse input string as an integer, exceeded maximum size")
    text = text.strip()
    if not INTEGER.fullmatch(text):
        raise ValueError("input should be a valid integer, unable to parse string as an integer")
    return int(text.partition(".")[0])


def _number(text: str) -> float:
    text = text.strip()
    try:
        if not text.isascii() or text.startswith("_") or text.endswith("_") or "__" in text:
            raise ValueError
        return float(text.replace("_", ""))
    except ValueError:
        raise ValueError("input should be a valid number, unable to parse string as a number") from None


NUMBERS: dict[type, Callable[[str], bool | float]] = {bool: _flag, int: _integer, float: _number}
_WORDS = {bool: "boolean", int: "integer", float: "number"}


def _number_of(given: Any, kind: Any) -> Any:
    if not isinstance(given, int | float):
        raise ValueError(f"input should be a valid {_WORDS[kind]}")
    if kind is bool and given not in (0, 1):
        reason = ", unable to interpret input" if given == given // 1 else ""
        raise ValueError(f"input should be a valid boolean{reason}")
    if kind is int and not isfinite(given):
        raise ValueError("input should be a finite number")
    if kind is int and isinstance(given, float) and abs(given) >= FLOAT_MOST:
        raise ValueError("unable to parse input string as an integer, exceeded maximum size")
    if kind is int and given != int(given):
        raise ValueError("input should be a valid integer, got a number with a fractional part")
    return kind(given)


def _check_limits(value: Any, limits: Mapping[str, Any]) -> None:
    # Negated, so that "nan" is within no limits.
    if (le := limits.get("le")) is not None and not value <= le:
        raise ValueError(f"input should be less than or equal to {le}")
    if (ge := limits.get("ge")) is not None and not value >= ge:
        raise ValueError(f"input should be greater than or equal to {ge}")
    if (gt := limits.get("gt")) is not None and not value > gt:
        raise ValueError(f"input should be greater than {gt}")
