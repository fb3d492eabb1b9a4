"""taskapp in an ASGI application, such as one of FastAPI or Starlette. docs/fastapi.md has examples."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.app.application import Celery

__all__ = ["lifespan"]

logger = logging.getLogger(__name__)

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(celery: Celery, inner: Lifespan | None = None) -> Lifespan:
    """Return a lifespan for an ASGI application that submits tasks of ``celery``.

    At startup it connects to the broker, off the event loop, so that no request waits for that; if the broker is away,
    it logs that, and the first submit tries again. At shutdown it closes the connections.

    Args:
        celery: The Celery app.
        inner: The application's own lifespan, entered after it and left before it.
    """

    @asynccontextmanager
    async def connected(application: Any) -> AsyncIterator[Any]:
        try:
            await asyncio.to_thread(celery.submitter.open)
        except (RedisError, OSError, OperationalError) as error:
            logger.warning("the broker cannot be reached yet: %s; the first submit tries again", error)
        try:
            async with inner(application) if inner is not None else nullcontext() as state:
                yield state
        finally:
            await asyncio.to_thread(celery.close_connections)

    return connected
