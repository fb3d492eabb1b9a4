"""Requests of task types that name a class of their own (``Task.Request``)."""

from __future__ import annotations

from functools import cache
from types import new_class
from typing import Any

from celery.worker import request as stock

from taskapp.errors.tasks import BadRequestClass
from taskapp.worker.consume.request import Request

_Stock: Any = stock.Request  # the stubs lack it
DECIDED_BY_POOL = ("execute_using_pool", "on_success")
"""Celery does not use what a request's class overrides of these."""


@cache
def request_class(given: Any) -> type[Request]:
    """Return ``given``, a ``Task.Request``, with ours behind it unless it derives from ours.

    Raises:
        BadRequestClass: It is no class of requests.
    """
    if not isinstance(given, type) or not issubclass(given, _Stock):
        raise BadRequestClass(given)
    if issubclass(given, Request):
        return given
    ours = {name: vars(Request)[name] for name in DECIDED_BY_POOL}
    return new_class(given.__name__, (given, Request), exec_body=lambda namespace: namespace.update(ours))


def makes_itself(given: type[Request]) -> bool:
    """Return whether requests of this class have to be made by its own ``__init__``."""
    return given.__init__ is not _Stock.__init__
