"""Rate limits of task types, per node; a task that waits for its turn holds no slot.

    claimed ──► its turn is soon ──► kept here, under the lease, outside all slots ──► run at its turn
        ▲  └──► later ───► requeued, to return shortly before its turn ────────┐
        └──────────────────────────────────────────────────────────────────────┘

Another node, with turns of its own, may claim a requeued message: a message always takes the next turn of the node
that claims it. Each node keeps some messages ahead, so that no turn is wasted when another node claimed the message
meant for it.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable
from random import Random
from time import monotonic
from typing import Any, NamedTuple

from celery.worker.state import task_ready, task_reserved

from taskapp.transport.codec import READY_AT_HEADER

AHEAD_SECONDS = 1.0
"""How long before its turn a message is kept; a new rate does not affect the turns already given in this time."""
AHEAD_MOST = 100
"""Maximum number of messages of a type that are kept."""
HORIZON_SECONDS = 10.0
"""How far ahead turns are given. A message without one returns later to ask again; after a change of the rate, all
messages with a turn have returned within this time."""
ASIDE_A_SECOND = 200
"""Approximate number of messages of a type that return per second to ask for a turn; if more do, they return less
often."""
ASIDE_MOST_SECONDS = 600.0
"""Maximum delay before a message without a turn returns."""


class WaitingTask(NamedTuple):
    """Whether to keep or requeue a message, and for how long."""

    is_kept: bool
    seconds: float
    """Seconds until it runs, or until the requeued message is ready again."""


class Turns:
    """The turns of one task type on one node. Times are monotonic seconds.

    Args:
        rate: Tasks per second.
        random: Spreads the times at which messages without a turn return.
    """

    def __init__(self, rate: float, random: Random | None = None) -> None:
        self.rate = rate
        self._period = 1.0 / rate
        self._ahead_seconds = min(AHEAD_SECONDS, AHEAD_MOST * self._period)
        self._random = random or Random()  # noqa: S311 - no secret
        self._next_at = self._line_at = 0.0
        self._returns: list[float] = []
        """When messages with a turn are expected back, in ascending order."""
        self._came = 0
        self._aside_seconds = HORIZON_SECONDS
        self._asides = 0
        self._asides_since = 0.0

    def place(self, now: float) -> WaitingTask:
        """Decide what to do with a message claimed at ``now``."""
        self._note_returns(now)
        at = max(self._next_at, now)
        has_had_turn = self._came > 0
        self._came = max(self._came - 1, 0)
        if at <= now + self._ahead_seconds:
            self._next_at = at + self._period
            return WaitingTask(is_kept=True, seconds=at - now)
        early_seconds = self._ahead_seconds / 2
        if has_had_turn and bisect_right(self._returns, now + early_seconds) < self.rate * self._ahead_seconds:
            # Another message took its turn, so it should be here for one of the next. Only as many are called back as
            # there are turns ahead; more would keep returning for nothing.
            return self._later(now, now + early_seconds)
        line_at = max(self._line_at, at)
        if line_at > now + HORIZON_SECONDS:
            return WaitingTask(is_kept=False, seconds=self._aside(now))
        self._line_at = line_at + self._period
        return self._later(now, line_at - early_seconds)

    def _note_returns(self, now: float) -> None:
        came = bisect_right(self._returns, now)
        del self._returns[:came]
        # Other nodes claimed some of them, and their messages arrive here.
        self._came = min(self._came + came, int(self.rate * self._ahead_seconds) + 1)

    def _later(self, now: float, at: float) -> WaitingTask:
        insort(self._returns, at)
        return WaitingTask(is_kept=False, seconds=at - now)

    def _aside(self, now: float) -> float:
        if now >= self._asides_since + 1.0:
            if self._asides > 2 * ASIDE_A_SECOND:
                self._aside_seconds = min(self._aside_seconds * 2, ASIDE_MOST_SECONDS)
            elif self._asides < ASIDE_A_SECOND // 2:
                self._aside_seconds = max(self._aside_seconds / 2, HORIZON_SECONDS)
            self._asides, self._asides_since = 0, now
        self._asides += 1
        return self._aside_seconds * self._random.uniform(0.5, 1.0)


class RateLimits:
    """The turns of all task types on one node.

    Args:
        run: Runs a request; called on the loop's thread.
        call_later: ``call_later(seconds, function, *args)`` calls ``function`` on the loop's thread.
    """

    def __init__(self, run: Callable[[Any], None], call_later: Callable[..., Any]) -> None:
        self._run, self._call_later = run, call_later
        self._turns: dict[str, Turns] = {}

    def take(self, request: Any, rate: float) -> None:
        """Run, keep or requeue a claimed request, whose type is limited to ``rate`` tasks per second."""
        name, message = request.task.name, request.message
        turns = self._turns.get(name)
        if turns is None or turns.rate != rate:
            turns = self._turns[name] = Turns(rate)
        place = turns.place(monotonic())
        if not place.is_kept:
            message.channel.give_back(message.delivery_tag, delay_seconds=place.seconds)
        elif place.seconds <= 0:
            self._run(request)
        else:
            # Reserved, so that it is requeued with the others when this node stops or its connection breaks.
            task_reserved(request)
            message.channel.qos.forget(message.delivery_tag)
            self._call_later(place.seconds, self._run_kept, request)

    def _run_kept(self, request: Any) -> None:
        message = request.message
        if message.delivery_tag in message.channel.process.node.held:
            message.channel.qos.append(message, message.delivery_tag)
            message.headers[READY_AT_HEADER] = message.channel.process.node.clock.now_ms() / 1_000
            self._run(request)
        else:
            # It has been requeued, or its lease has expired.
            task_ready(request)
