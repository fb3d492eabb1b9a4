"""Requests of task types that name a class of their own (``Task.Request``)."""

from __future__ import annotations

from functools import cache
from types import new_class
from typing import Any

from celery.worker import request as stock

from taskapp.errors.tasks import BadRequestClass
from taskapp.worker.consume.request import Request
from taskapp.worker.run.guard import guarded

_Stock: Any = stock.Request  # missing in the stubs
DECIDED_BY_POOL = ("execute_using_pool", "on_success")
"""Methods whose overrides in a request class Celery ignores."""
CALLED_BACK = ("on_accepted", "on_failure", "on_timeout")
"""Methods that pools call; an override that raises fails its task and must affect nothing else."""


@cache
def request_class(given: Any) -> type[Request]:
    """Return ``given``, a ``Task.Request``, combined with our ``Request``; its callbacks for pools are guarded.

    Raises:
        BadRequestClass: ``given`` is not a subclass of Celery's ``Request``.
    """
    if not isinstance(given, type) or not issubclass(given, _Stock):
        raise BadRequestClass(given)
    own = [name for name in CALLED_BACK if getattr(given, name) not in (getattr(_Stock, name), getattr(Request, name))]
    names = {name: guarded(getattr(given, name)) for name in own}
    bases: tuple[type, ...] = (given,)
    if not issubclass(given, Request):
        names |= {name: vars(Request)[name] for name in DECIDED_BY_POOL}
        bases = (given, Request)
    elif not own:
        return given
    return new_class(given.__name__, bases, exec_body=lambda namespace: namespace.update(names))


def makes_itself(given: type[Request]) -> bool:
    """Return whether requests of this class must be created through its own ``__init__``."""
    return given.__init__ is not _Stock.__init__
