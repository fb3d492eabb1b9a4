"""Reports once that a server is away and once that it is back, and sets the interval between attempts."""

from __future__ import annotations

import logging
import random
from math import inf
from time import monotonic
from typing import Any
from weakref import WeakSet

from taskapp.background import in_child
from taskapp.redis.link import REFUSALS

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 2.0
"""Short, so that a server that is back is used within seconds."""
EARLIER_SECONDS = 1.0
"""How long an answer from before the server went away may take to be read."""


class ServerHealth:
    """What this process knows of a server. Whichever part notices first reports a change, and no other part repeats it.

    Every part that calls ``failed`` calls ``works`` once it succeeds again. Any thread may call both, in native threads
    of a green process too, hence no locks.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.start_over()

    def start_over(self) -> None:
        """Start over in a new process."""
        self._away: dict[str, float] = {}
        self._failing: WeakSet[Any] = WeakSet()
        self._refusals: set[str] = set()

    def failed(self, part: object, error: object) -> None:
        """Record that ``part`` cannot use the server; log it if that is news.

        A server that cannot save to disk refuses even new connections: that is news, too, after a broken connection.
        """
        refusal = next((word for word in REFUSALS if word in str(error)), "")
        is_other = bool(refusal) and refusal not in self._refusals
        self._refusals.add(refusal)
        if part in self._failing and not (is_other and self._away):
            return  # it may fail once more after another part has found the server back
        self._failing.add(part)
        now = monotonic()
        known = len(self._away)
        if self._away.setdefault("since", now) == now and not known:
            logger.error("the %s is away: %s; trying again", self._name, error, extra={"action": "server_away"})
        elif is_other:
            logger.error("the %s is still away: %s; trying again", self._name, error, extra={"action": "server_away"})

    def works(self, part: object) -> None:
        """Record that ``part`` has used the server; log it if the server was away."""
        if part in self._failing:
            self._failing.discard(part)
        elif monotonic() - self._away.get("since", inf) < EARLIER_SECONDS:
            return  # it may have had its answer before the server went away
        since = self._away.pop("since", None)
        if since is not None:
            self._refusals = set()
            seconds = monotonic() - since
            logger.warning("the %s is back after %.1f s", self._name, seconds, extra={"action": "server_back"})


broker, result_server = ServerHealth("broker"), ServerHealth("result server")


def _start_over() -> None:
    for server in (broker, result_server):
        server.start_over()


in_child(_start_over)


class Trouble:
    """A problem of one part with the broker, from its first failure until it works again."""

    def __init__(self) -> None:
        self._reason = ""
        self._since = 0.0
        self._failures = 0

    def away(self, error: object) -> None:
        """Record that the broker cannot be reached."""
        self._failures += 1
        broker.failed(self, error)

    def refused(self, what: str, error: object) -> None:
        """Record that the broker refuses something; log it unless it equals the last refusal logged.

        Args:
            what: A sentence with one ``%s``.
            error: The error of the server.
        """
        self._failures += 1
        self._since = self._since or monotonic()
        # Ignore numbers, such as ports of connections, when comparing.
        reason = what % _without_digits(str(error))
        if reason != self._reason:
            self._reason = reason
            logger.error(f"{what}; trying again", error, extra={"action": "broker_refuses"})  # noqa: G004 - what is a constant

    def end(self) -> None:
        """Record that it works again; logs the duration of the problem."""
        if not self._failures:
            return
        if self._reason:
            seconds = monotonic() - self._since
            logger.warning("the broker accepts it again after %.1f s", seconds, extra={"action": "broker_accepts"})
        broker.works(self)
        self._reason, self._since, self._failures = "", 0.0, 0

    def pause_seconds(self) -> float:
        """Return how long to wait before the next attempt: doubled each time up to 2 s, with jitter."""
        longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 10), LONGEST_PAUSE_SECONDS)
        return longest * random.uniform(0.75, 1.0)  # noqa: S311 - spreads nodes, keeps no secret


def _without_digits(text: str) -> str:
    return "".join(character for character in text if not character.isdigit())
