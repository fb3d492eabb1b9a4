"""Encodes dicts that look like kombu's encoding of a type so that they are decoded as plain dicts.

kombu writes types that JSON lacks as ``{"__type__": "datetime", "__value__": …}`` and decodes every dict with exactly
these keys accordingly, even one that a web user sent. Here such a dict is written with the type ``taskapp.dict`` and
its items as pairs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from kombu.utils.json import register_type

from taskapp.celery_internals import sends_results

_KEYS = frozenset({"__type__", "__value__"})
_TYPE = "taskapp.dict"
SIGN = '"__type__"'
"""Text in JSON that may need this encoding."""


class _Pairs:
    """Represents such a dict in kombu's table of types."""


def _read(pairs: Any) -> Any:
    return dict(pairs)


register_type(_Pairs, _TYPE, repr, _read)


def as_literal(content: Any) -> Any:
    """Return ``content`` with such dicts encoded as pairs; ``content`` itself if there is none.

    Data nested too deeply to be written as JSON is returned unchanged.
    """
    try:
        return _as_literal(content)
    except RecursionError:
        return content


def _as_literal(content: Any) -> Any:
    if isinstance(content, dict):
        items = {key: _as_literal(value) for key, value in content.items()}
        if items.keys() == _KEYS:
            return {"__type__": _TYPE, "__value__": list(items.items())}
        return items if any(items[key] is not content[key] for key in items) else content
    if type(content) is list or isinstance(content, tuple):
        values = [_as_literal(value) for value in content]
        return values if any(new is not old for new, old in zip(values, content, strict=True)) else content
    return content


# Mixed into backends of Celery, which have no useful common base.
_Mixin: Any = object


class _WritesLiteral(_Mixin):
    """Makes Celery's backend write such dicts as pairs."""

    _stock: type

    def encode(self, data: Any) -> Any:
        return super().encode(as_literal(data) if self.serializer == "json" else data)

    def __reduce__(self, *args: Any, **options: Any) -> Any:
        load, (_, *rest) = super().__reduce__(*args, **options)
        return load, (self._stock, *rest)


class _SendsLiteral(_WritesLiteral):
    """The same for backends that send results as messages."""

    def _to_result(self, *args: Any, **options: Any) -> Any:
        result = super()._to_result(*args, **options)
        return as_literal(result) if self.serializer == "json" else result


@cache
def writing_literals(backend: type) -> type:
    """Return a subclass of ``backend`` that writes such dicts as pairs; taskapp's own backends already do."""
    if getattr(backend, "measures_results", False):
        return backend
    mixin = _SendsLiteral if sends_results(backend) else _WritesLiteral
    return type(backend.__name__, (mixin, backend), {"_stock": backend, "__module__": backend.__module__})
