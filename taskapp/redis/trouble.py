"""Logs a connection problem once, and sets the interval between attempts."""

from __future__ import annotations

import logging
import random
from time import monotonic

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 2.0
"""Short, so that a server that is back is used within seconds."""


class Trouble:
    """A connection problem, from the first failure until something works again."""

    def __init__(self) -> None:
        self._reason = ""
        self._since = 0.0
        self._failures = 0

    def begin(self, what: str, error: object) -> None:
        """Record a failure; log it unless it equals the last one logged.

        Args:
            what: A sentence with one ``%s``.
            error: The error of the server or the network.
        """
        self._failures += 1
        if not self._since:
            self._since = monotonic()
        # Ignore numbers, such as ports of connections, when comparing.
        reason = what % _without_digits(str(error))
        if reason != self._reason:
            self._reason = reason
            logger.error(f"{what}; trying again", error, extra={"action": "broker_trouble"})  # noqa: G004 - what is a constant

    def end(self) -> None:
        """Record that it works again; logs the duration of the problem."""
        if not self._failures:
            return
        logger.info("the broker works again after %.1f s", monotonic() - self._since, extra={"action": "broker_works"})
        self._reason, self._since, self._failures = "", 0.0, 0

    def pause_seconds(self) -> float:
        """Return how long to wait before the next attempt: doubled each time up to 2 s, with jitter."""
        longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 10), LONGEST_PAUSE_SECONDS)
        return longest * random.uniform(0.75, 1.0)  # noqa: S311 - spreads nodes, keeps no secret


def _without_digits(text: str) -> str:
    return "".join(character for character in text if not character.isdigit())
