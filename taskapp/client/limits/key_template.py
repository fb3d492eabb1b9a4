"""Keys made of arguments: ``"{tenant}"``, ``"{order[id]}"``, ``"{shop}:{user.id}"``.

Only names, attributes and indices are read: no formats, no conversions, nothing that begins with an underscore.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from string import Formatter
from typing import Any, NamedTuple
from uuid import UUID

from taskapp.client.limits.arguments import Arguments, MissingArgument

NAME = r"[^\W\d]\w*"
STEP = rf"\.{NAME}|\[[^\[\]]+\]"
PATH = re.compile(rf"({NAME})((?:{STEP})*)")
SCALARS = (str, int, float, Decimal, UUID, date, time, timedelta, type(None))
"""Types whose text identifies a value."""


class BadTemplate(ValueError):
    """A text is not a template of a key; the error says why, and what to write instead."""


class NoValue(ValueError):
    """A call gives a template no value for a key; the error says why."""


class TemplateField(NamedTuple):
    """A part of a template in braces."""

    name: str
    """Name of the argument."""
    steps: tuple[str, ...]
    """Attributes (``.id``), keys or indices (``[id]``) that lead from the argument to the value."""
    text: str

    def value(self, arguments: Arguments, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return the value that a call gives this field.

        Raises:
            NoValue: There is none.
        """
        try:
            value = arguments.find(self.name, args, kwargs)
            for step in self.steps:
                value = _inside(value, step)
        except MissingArgument:
            raise NoValue(f"the argument {self.name!r} is missing") from None
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            raise NoValue(f"{{{self.text}}} leads nowhere ({type(error).__name__}: {error})") from error
        return value


class KeyTemplate:
    """A template that makes a key of the arguments of a call.

    Two calls have the same key only if all its fields have the same text: where it has several fields, characters of
    the text between them are escaped in values.
    """

    def __init__(self, text: str) -> None:
        """Read ``text``.

        Raises:
            BadTemplate: It is no template.
        """
        self.text = text
        self._parts = tuple(_parts_of(text))
        self.fields = tuple(field for _, field in self._parts if field is not None)
        if not self.fields:
            raise BadTemplate(f"it names no argument; put the name of one in braces, as in {_in_braces(text)!r}")
        is_single = len(self.fields) == 1
        between = "" if is_single else "".join({*"".join(literal for literal, _ in self._parts)} | {"\\"})
        self._escaped = re.compile(f"[{re.escape(between)}]") if between else None

    def check(self, arguments: Arguments) -> None:
        """Check that every field names an argument.

        Raises:
            BadTemplate: One does not.
        """
        for field in self.fields:
            if field.name in arguments:
                continue
            close = get_close_matches(field.name, arguments.names, n=1)
            meant = f"; did you mean '{{{close[0]}}}'?" if close else ""
            names = ", ".join(arguments.names) or "none"
            raise BadTemplate(f"{{{field.text}}} names no argument of the task{meant or '; use one of its arguments'} "
                              f"(arguments: {names})")  # fmt: skip

    def fill(self, arguments: Arguments, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the key of a call.

        Raises:
            NoValue: The call gives a field no value, or one whose text does not identify it.
        """
        texts = []
        for literal, field in self._parts:
            texts.append(literal)
            if field is not None:
                text = text_of(field.value(arguments, args, kwargs), f"{{{field.text}}}")
                texts.append(text if self._escaped is None else self._escaped.sub(r"\\\g<0>", text))
        return "".join(texts)


def text_of(value: Any, what: str) -> str:
    """Return the text of ``value``, which ``what`` names.

    Raises:
        NoValue: Its text would not identify it, because it is not a string, number, date, UUID, enum or ``None``.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, SCALARS):
        return str(value)
    hint = f"name one of its values, as in {what[:-1]}[id]}}" if isinstance(value, Mapping) else "use a text or number"
    raise NoValue(f"{what} is a {type(value).__name__}; {hint}")


def _inside(value: Any, step: str) -> Any:
    name = step[1:].removesuffix("]")
    if isinstance(value, Mapping):  # a model is a dict by now, so that its fields may be read as attributes
        return value[name] if name in value or not name.isdecimal() else value[int(name)]
    return getattr(value, name) if step.startswith(".") else value[int(name)]


def _parts_of(text: str) -> Iterator[tuple[str, TemplateField | None]]:
    try:
        pieces = list(Formatter().parse(text))
    except ValueError as error:
        raise BadTemplate(f"its braces do not match ({error}); write {{{{ for a brace in the key") from error
    was_field = False
    for literal, path, form, conversion in pieces:
        if path is None:
            yield literal, None
            continue
        if was_field and not literal:
            raise BadTemplate("two arguments follow each other; put a character between them, as in '{shop}:{user}'")
        if form or conversion:
            raise BadTemplate(f"formats and conversions are not supported; write {{{path}}} alone")
        yield literal, _field(path)
        was_field = True


def _field(path: str) -> TemplateField:
    found = PATH.fullmatch(path)
    if found is None:
        raise BadTemplate(f"{{{path}}} names no argument; use names, attributes and indices, as in {{order[id]}}")
    steps = tuple(re.findall(STEP, found[2]))
    if any(step.startswith("._") for step in steps):
        raise BadTemplate(f"{{{path}}} reads a private attribute; use a public one")
    return TemplateField(found[1], steps, path)


def _in_braces(text: str) -> str:
    return f"{{{text}}}" if text.isidentifier() else "{tenant}"
