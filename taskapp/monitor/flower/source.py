"""Runs the tabs' broker calls on separate threads with a timeout; maps errors to a sentence and a status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError
from tornado.web import HTTPError

from taskapp.errors import BrokerNotFound, BrokerUnavailable, NoEngine, TaskappError
from taskapp.monitor.flower.page.tab import NotFound
from taskapp.redis.link import OutcomeUnknown

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 6.0
"""How long a page waits before it reports that the broker does not answer."""
THREADS = 4
"""In addition to Flower's threads, which may all be waiting for a worker that does not answer."""


class Problem(HTTPError):
    """An error whose sentence is shown to people unchanged."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, "%s", sentence)


class TabSource:
    """Makes calls that may wait for the broker."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tabs")

    async def call(self, question: Callable[[], Answer], *, changes: bool = False) -> Answer:
        """Call ``question`` on a thread and return its result.

        Args:
            question: The call.
            changes: Whether the call changes something, so that an error may leave its outcome unknown.

        Raises:
            NoEngine: The broker is not Redis.
            Problem: The call failed or timed out; with the reason.
        """
        doubt = "; check whether the action took effect before repeating it" if changes else ""
        try:
            future = asyncio.wrap_future(self._threads.submit(question))
            return await asyncio.wait_for(future, PATIENCE_SECONDS)
        except NoEngine:
            raise
        except NotFound as error:
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
