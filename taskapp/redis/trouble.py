"""Says once what is wrong between this process and its server, and sets the pace of trying again."""

from __future__ import annotations

import logging
import random
from time import monotonic

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 2.0
"""Short, because a server that is back shall be used within seconds; a pause says how long nobody asks."""


class Trouble:
    """What is wrong, from the first failure until something works again."""

    def __init__(self) -> None:
        self._reason = ""
        self._since = 0.0
        self._failures = 0

    def begin(self, what: str, error: object) -> None:
        """Take note of a failure; log it unless it is the one that was logged last.

        Args:
            what: A sentence with one ``%s``.
            error: What the server or the network said.
        """
        self._failures += 1
        if not self._since:
            self._since = monotonic()
        # Numbers in it, such as ports of a connection, do not make it another one.
        reason = what % _without_digits(str(error))
        if reason != self._reason:
            self._reason = reason
            logger.error(f"{what}; trying again", error, extra={"action": "broker_trouble"})  # noqa: G004 - what is a constant

    def end(self) -> None:
        """Take note that it works."""
        if not self._failures:
            return
        logger.info("the broker works again after %.1f s", monotonic() - self._since, extra={"action": "broker_works"})
        self._reason, self._since, self._failures = "", 0.0, 0

    def pause_seconds(self) -> float:
        """Return how long to wait before the next attempt: doubled each time, and not the same for all nodes."""
        longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 10), LONGEST_PAUSE_SECONDS)
        return longest * random.uniform(0.75, 1.0)  # noqa: S311 - spreads nodes, keeps no secret


def _without_digits(text: str) -> str:
    return "".join(character for character in text if not character.isdigit())
