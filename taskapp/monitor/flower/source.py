"""How tabs reach the broker: on threads of their own, with a bound on waiting, errors as a sentence and a status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError
from tornado.web import HTTPError

from taskapp.errors import BrokerNotFound, BrokerUnavailable, NoEngine, TaskappError
from taskapp.monitor.flower.page.tab import NotThere
from taskapp.redis.link import OutcomeUnknown

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 6.0
"""A page says that the broker is away rather than wait for it longer."""
THREADS = 4
"""Beside Flower's own, which may all wait for a worker that does not answer."""


class Problem(HTTPError):
    """Why there is no answer; shown to people as it is."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, "%s", sentence)


class TabSource:
    """Calls what may wait for the broker."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tabs")

    async def call(self, question: Callable[[], Answer], *, changes: bool = False) -> Answer:
        """Return what ``question`` returns.

        Args:
            question: Called on a thread.
            changes: Whether it may have done something that an error leaves in doubt.

        Raises:
            NoEngine: The broker is no Redis.
            Problem: There is no answer; with the reason.
        """
        doubt = "; look whether it was done before doing it again" if changes else ""
        try:
            future = asyncio.wrap_future(self._threads.submit(question))
            return await asyncio.wait_for(future, PATIENCE_SECONDS)
        except NoEngine:
            raise
        except NotThere as error:
            raise Problem(404, str(error)) from error
        except TimeoutError as error:
            raise Problem(503, f"the broker did not answer within {PATIENCE_SECONDS:g} s{doubt}") from error
        except ResponseError as error:
            raise Problem(502, f"Redis refused: {error}") from error
        except OutcomeUnknown as error:
            raise Problem(503, f"the connection broke before the answer: {error}{doubt}") from error
        except (RedisError, OSError, OperationalError, BrokerNotFound, BrokerUnavailable) as error:
            raise Problem(503, f"the broker cannot be reached: {error}") from error
        except (TaskappError, ValueError) as error:
            raise Problem(409 if changes else 400, str(error)) from error
