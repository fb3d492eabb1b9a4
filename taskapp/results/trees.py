"""Walks through results of Celery: nested sets, and the parents of a chain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from taskapp.celery_internals import is_single_result


def leaves(result: Any) -> Iterator[Any]:
    """Yield the results of single tasks in ``result``, which may be a nested set."""
    if is_single_result(result):
        yield result
    else:
        for member in result.results or ():
            yield from leaves(member)


def parents(result: Any) -> Iterator[Any]:
    """Yield the results of single tasks in the parents of ``result``, the nearest first."""
    while (result := getattr(result, "parent", None)) is not None:
        yield from leaves(result)
