"""Requests of task types that name a class of their own (``Task.Request``)."""

from __future__ import annotations

from functools import cache
from types import new_class
from typing import Any

from celery.worker import request as stock

from taskapp.errors.tasks import BadRequestClass
from taskapp.worker.consume.request import Request

_Stock: Any = stock.Request  # missing in the stubs
DECIDED_BY_POOL = ("execute_using_pool", "on_success")
"""Methods whose overrides in a request class Celery ignores."""


@cache
def request_class(given: Any) -> type[Request]:
    """Return ``given``, a ``Task.Request``, combined with our ``Request`` unless it already derives from it.

    Raises:
        BadRequestClass: ``given`` is not a subclass of Celery's ``Request``.
    """
    if not isinstance(given, type) or not issubclass(given, _Stock):
        raise BadRequestClass(given)
    if issubclass(given, Request):
        return given
    ours = {name: vars(Request)[name] for name in DECIDED_BY_POOL}
    return new_class(given.__name__, (given, Request), exec_body=lambda namespace: namespace.update(ours))


def makes_itself(given: type[Request]) -> bool:
    """Return whether requests of this class must be created through its own ``__init__``."""
    return given.__init__ is not _Stock.__init__
