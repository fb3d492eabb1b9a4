"""An outage of the result server, as seen by one caller."""

from __future__ import annotations

import math
import time

from redis import ConnectionError as RedisConnectionError
from redis import TimeoutError as RedisTimeoutError

from taskapp.errors import TaskappError
from taskapp.redis.trouble import result_server

SERVER_GONE = (RedisConnectionError, RedisTimeoutError, OSError)
"""Errors of a connection whose server is away or does not answer in time."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0


class ResultServerGone(TaskappError, RedisConnectionError):
    """The result server was away for longer than the caller waits."""

    def __init__(self, doing: str, away_seconds: float, reason: object) -> None:
        super().__init__(
            f"gave up {doing}: the result server has been away for {away_seconds:.1f} s ({reason}); "
            "start it, or correct TASKAPP_RESULT_URL, and try again"
        )


class ResultServerAway(TaskappError, RedisConnectionError, RedisTimeoutError):
    """The result server cannot be reached; ``reason`` is the error of redis-py."""

    def __init__(self, url: str, setting: str, reason: object) -> None:
        self.reason = reason
        why = str(reason).rstrip(".")
        super().__init__(
            f"results cannot be read or written: {url or 'their server'} cannot be reached ({why}); "
            f"start it, or correct {setting}"
        )


class Outage:
    """Pauses between attempts, and logs that the server is away and when it is back.

    Args:
        doing: The action that has to wait, for the log: ``storing the result of task …``.
        patience_seconds: How long to keep trying; ``math.inf``: until the server is back.
    """

    def __init__(self, doing: str, patience_seconds: float) -> None:
        self._doing, self._patience_seconds = doing, patience_seconds
        ends = math.isfinite(patience_seconds)
        self._until = f"giving up after {patience_seconds:.0f} s" if ends else "trying until it is back"
        self._start_over()

    def _start_over(self) -> None:
        self._since: float | None = None
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def pause(self, error: Exception, *, at_most_seconds: float = math.inf) -> None:
        """Sleep before the next attempt: 0.05 s, then twice as long each time, up to 1 s.

        Raises:
            ResultServerGone: It has been away for ``patience_seconds``; ``error`` is the cause.
        """
        error = getattr(error, "reason", error)
        now = time.monotonic()
        self._since = self._since or now
        away_seconds = now - self._since
        if away_seconds >= self._patience_seconds:
            raise ResultServerGone(self._doing, away_seconds, error) from error
        result_server.failed(self, f"{error}; {self._doing} has to wait, {self._until}")
        time.sleep(min(self._pause_seconds, at_most_seconds, self._patience_seconds - away_seconds))
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)

    def end(self) -> None:
        """Record that the server answers; does nothing if there was no outage."""
        result_server.works(self)
        if self._since is not None:
            self._start_over()
