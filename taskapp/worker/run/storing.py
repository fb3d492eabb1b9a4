"""Stores outcomes with ``django-celery-results``, whose backends refuse to work on an event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable
from functools import cache, partial
from typing import Any

from celery.utils.imports import symbol_by_name

from taskapp.execution.side_loop import is_on_a_loop

PACKAGE = "django_celery_results"


def storing(backend: Any, write: Callable[..., Any], *args: Any, **options: Any) -> Iterable[Any]:
    """Call ``write``, a method of ``backend``, or return the step of a run that does, where it must not run here."""
    if is_of_django(backend.__class__) and is_on_a_loop():
        return _step(partial(write, *args, **options))
    write(*args, **options)
    return ()


@cache
def is_of_django(backend_class: type) -> bool:
    """Return whether a result backend works through Django's synchronous ORM or caches."""
    return any(each.__module__.partition(".")[0] == PACKAGE for each in backend_class.__mro__)


async def off_the_loop(backend: Any, call: Callable[[], Any]) -> Any:
    """Return what ``call`` returns; it may use ``backend``. For coroutines."""
    return await _away(call) if is_of_django(backend.__class__) else call()


def _step(write: Callable[[], Any]) -> Generator[Coroutine[Any, Any, Any], Any, None]:
    yield _away(write)


def _away(call: Callable[[], Any]) -> Coroutine[Any, Any, Any]:
    # To the thread that has the connections of coroutines, which the fixup closes.
    coroutine: Coroutine[Any, Any, Any] = symbol_by_name("asgiref.sync:sync_to_async")(call)()
    return coroutine
