"""The leader among the beats, which queues due ticks.

Beats contend for a lease in Redis. The leader sends its token with every command, so that a former leader that
was frozen changes nothing when it continues. Ticks are prepared shortly before they are due; when due, one script
checks the token, queues the messages and advances the schedules. In between, the leader waits on its sockets, without
a timer of the server, until something is due or a schedule has changed.

All times are of Redis' clock, see ``wall_clock``.
"""

from __future__ import annotations

import logging
import select
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import chain
from time import monotonic, sleep
from typing import Any, TypeVar

from redis.connection import Connection
from redis.exceptions import RedisError

from taskapp.client.written_messages import Publisher
from taskapp.engine.clock import steady_ms
from taskapp.engine.producer import publications
from taskapp.errors import BrokerUnavailable, TaskappError
from taskapp.errors.publishing import BrokerAway
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link
from taskapp.redis.pipe import Pipe
from taskapp.schedules.calendars import Calendars, Days
from taskapp.schedules.prepared_tick import Ready, prepared, queueing
from taskapp.schedules.record import known_from
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.store import RUNS_KEPT, Make
from taskapp.schedules.tick_queue import TickQueue
from taskapp.schedules.wall_clock import WallClock

LEASE_SECONDS = 5.0
RENEWALS = 4
"""How often a lease is renewed before it would expire."""
STANDBY_SECONDS = 1.0
LOOK_AHEAD_MS = 2_000
"""How long before it is due a tick is prepared."""
LOOK_SECONDS = 0.5
CHANGED_MS = 100
"""Minimum time between two reads of the schedules after a change."""
READ_AT_ONCE = 500
MADE_SECONDS = 0.005
"""Maximum time to prepare ticks without checking whether others are due."""
SENT_AT_ONCE = 100
UNREACHABLE = (RedisError, OSError, BrokerUnavailable, BrokerAway)
"""Errors that no schedule has caused, so that the request is retried."""
HANDS_OVER_SECONDS = 5.0
"""After this long without the broker, another beat should lead: only this one may be cut off."""

Made = TypeVar("Made")

logger = logging.getLogger(__name__)


class ScheduleLeader:
    """Contends for leadership, and queues due ticks while it leads.

    Args:
        connect: Opens connections to the server of the schedules.
        prefix: Prefix of the keys.
        make: Creates the message of a tick; see ``Make``.
        name: Name of this beat, shown to users.
        resolve: Completes a schedule with times that only this process knows.
        publisher: Publishes ticks; ``None`` if the server of the schedules is also the broker.
        on_lead: Returns the steps to run after this beat becomes the leader; they run between ticks.
        on_cancel: Called with the ids of runs that a tick cancels.
        lease_seconds: How long this beat may be silent before another becomes the leader.
    """

    def __init__(
        self, connect: Callable[[], Connection], prefix: str, make: Make, name: str, *,
        resolve: Callable[[Schedule], Schedule] = lambda schedule: schedule,
        publisher: Publisher | None = None,
        on_lead: Callable[[], Iterator[None]] = lambda: iter(()),
        on_cancel: Callable[[list[str]], None] = lambda _: None, lease_seconds: float = LEASE_SECONDS,
    ) -> None:  # fmt: skip
        self._link, self._prefix, self._make = Link(connect), prefix, make
        self._calendars = Calendars(self._link, prefix)
        self._waiting = Pipe(connect)
        self._ticks = TickQueue(self._link, prefix, publisher) if publisher is not None else None
        self._wake_keys = [Keys(prefix)("schedules_wake"), *([self._ticks.wake_key] if self._ticks else [])]
        self._name = name
        self._resolve, self._on_lead, self._on_cancel = resolve, on_lead, on_cancel
        self._beginning: Iterator[None] | None = None
        self._lease_seconds, self._lease_ms = lease_seconds, round(lease_seconds * 1_000)
        self.token = ""
        """Token of the lease; empty if this beat does not lead."""
        self.is_in_touch = False
        """Whether the server answered the last request."""
        self._renew_at = 0.0
        self._clock = WallClock()
        self._ready: dict[str, Ready] = {}
        self._heap: list[tuple[int, str]] = []
        """Send time and name of prepared ticks; entries may be stale."""
        self._unprepared: deque[tuple[int, str, Sequence[bytes]]] = deque()
        """Schedules read but not prepared, soonest first."""
        self._again: deque[Ready] = deque()
        """Schedules that were just sent and are due again soon."""
        self._page = READ_AT_ONCE
        self._changes: bytes | None = None
        """Number of changes to schedules at the last read."""
        self._seen_until_ms = 0
        """Schedules due up to this time have been read."""
        self._look_at_ms = self._looked_ms = 0.0
        self._days: dict[str | None, Days] = {}
        """Days of the calendars that have been read."""
        self._is_asking = False

    # --- one turn ------------------------------------------------------------------------------------

    def turn(self, most_seconds: float = STANDBY_SECONDS) -> None:
        """Queue due ticks, then wait until the next is due, a schedule changes, or ``most_seconds`` have passed."""
        try:
            if self._ticks is not None and not self.token:
                self._ticks.reach()
            wait_seconds = self._lead() if monotonic() >= self._renew_at else 0.0
            if self.token:
                wait_seconds = self._send_what_is_due()
            self.is_in_touch = True
            self._wait(min(wait_seconds, most_seconds))
        except UNREACHABLE as error:
            if self.is_in_touch:
                server = "broker" if isinstance(error, BrokerAway) else "server of the schedules"
                logger.error("the %s is unreachable or refuses requests: %s; retrying", server, error)
            self.is_in_touch = False
            self._forget()
            self._waiting.close()
            if self.token and self._ticks is not None and self._ticks.away_seconds() >= HANDS_OVER_SECONDS:
                self._hand_over()
            sleep(min(STANDBY_SECONDS / 2, most_seconds))

    def resign(self) -> None:
        """Give up leadership, so that another beat can lead at once; close the connections."""
        try:
            if self.token:
                self._link.run("schedules/resign", self._prefix, 0, self.token)
        except (RedisError, OSError) as error:
            logger.warning(
                "could not give up leadership: %s; another beat can lead in %.0f s", error, self._lease_seconds
            )
        finally:
            self.token, self._beginning = "", None
            self._link.close()
            self._waiting.close()

    def _hand_over(self) -> None:
        """Give up leadership until this beat can reach the broker again."""
        logger.warning("this beat cannot reach the broker; giving up leadership")
        self.resign()
        self._renew_at = 0.0

    # --- leading -------------------------------------------------------------------------------------

    def _lead(self) -> float:
        """Acquire or renew the lease; return the seconds to wait, 0 while this beat leads."""
        asked_at, sent_ms = monotonic(), steady_ms()
        answer = self._link.run("schedules/lead", self._prefix, 0, self._name, self.token, self._lease_ms)
        token, left_ms, wall_ms = answer
        self._note_time(wall_ms, sent_ms)
        was, self.token = self.token, token.decode()
        if not self.token:
            if was:
                self._lose()
            return float(min(max(left_ms / 1_000, 0.05), STANDBY_SECONDS))
        self._renew_at = asked_at + self._lease_seconds / RENEWALS
        if self.token != was:
            logger.info("this beat leads now (token %s)", self.token)
            self._forget()
            self._beginning = self._on_lead()
        return 0.0

    def _lose(self) -> None:
        logger.warning("another beat leads now; this one is on standby")
        self.token, self._renew_at, self._beginning = "", 0.0, None
        self._forget()

    def _forget(self) -> None:
        for known in (self._ready, self._heap, self._again, self._unprepared, self._days):
            known.clear()
        self._seen_until_ms, self._look_at_ms = 0, 0.0

    def _note_time(self, wall_ms: float, sent_ms: float) -> None:
        if self._clock.was_set(wall_ms, sent_ms):
            self._forget()

    # --- preparing -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read the schedules that are due soon and have not been read."""
        asked_ms = steady_ms()
        self._looked_ms = self._clock.now_ms()
        # Whole milliseconds, as due times are; the next read continues after this one.
        until_ms = int(self._clock.now_ms()) + LOOK_AHEAD_MS
        wall_ms, changes, *found = self._link.run(
            "schedules/due", self._prefix, 0, f"({self._seen_until_ms}", until_ms, self._page
        )
        self._note_time(wall_ms, asked_ms)
        if changes != self._changes:
            was, self._changes = self._changes, changes
            if was is not None and self._seen_until_ms:
                self._forget()
                return  # the next turn reads again
        read = [
            (round(float(at)), name.decode(), fields)
            for name, at, fields in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]
        if len(read) < self._page:
            self._seen_until_ms = max(until_ms, self._seen_until_ms)
            self._look_at_ms = self._clock.now_ms() + LOOK_SECONDS * 1_000
        elif read[0][0] == read[-1][0]:
            # Schedules due at the same instant must be on one page, because the next page starts after it.
            self._page *= 2
            return
        else:
            read = [each for each in read if each[0] < read[-1][0]]
            self._seen_until_ms = read[-1][0]
        self._page = READ_AT_ONCE
        self._unprepared.extend(read)

    def _prepare_some(self) -> bool:
        """Prepare a few ticks; return whether there were any."""
        until = monotonic() + MADE_SECONDS
        has_some = bool(self._again or self._unprepared)
        while monotonic() < until and (self._again or self._unprepared):
            if self._again:
                self._advance(self._again.popleft())
            else:
                self._prepare(*self._unprepared.popleft())
        return has_some

    def _prepare(self, at_ms: int, name: str, fields: Sequence[bytes]) -> None:
        if not fields:
            self._mark_broken(name, "", "it is gone")
            return
        known = known_from(name, fields)
        if known.broken or known.due_at is None:
            self._mark_broken(name, known.revision, known.broken or "it has no due time")
            return
        due_ms = round(known.due_at * 1_000)

        def make() -> Ready:
            schedule = self._resolve(known.schedule)
            timing = schedule.timing(self._calendar(schedule.calendar))
            return prepared(schedule, timing, known.revision, due_ms, at_ms, self._make)

        self._keep(self._guarded(name, known.revision, make))

    def _calendar(self, name: str | None) -> Days:
        if name not in self._days:
            self._days[name] = self._calendars.days(name)
        return self._days[name]

    def _guarded(self, name: str, revision: str, make: Callable[[], Made]) -> Made | None:
        """Call ``make`` and return its result; if it fails, mark the schedule as broken and return ``None``."""
        try:
            return make()
        except UNREACHABLE:
            raise
        except Exception as error:  # raised by a user's router or configured schedule, for example
            is_ours = isinstance(error, TaskappError)
            logger.error("schedule %r cannot be queued, marking it as broken: %s", name, error, exc_info=not is_ours)
            self._mark_broken(name, revision, f"{type(error).__name__}: {error}")
            return None

    def _mark_broken(self, name: str, revision: str, error: str) -> None:
        """Mark a schedule as broken, so that it is no longer due."""
        self._link.run("schedules/pause", self._prefix, 0, name, "broken", error[:1_000], revision)

    def _keep(self, ready: Ready | None) -> None:
        if ready is not None:
            self._ready[ready.schedule.name] = ready
            heappush(self._heap, (ready.at_ms, ready.schedule.name))

    # --- sending -------------------------------------------------------------------------------------

    def _send_what_is_due(self) -> float:
        """Queue a batch of due ticks or prepare some; return the seconds until there is more to do."""
        if self._ticks is not None and self._ticks.may_hold_some:
            # First: while the broker accepts nothing, no tick is queued, so that misfire policies apply afterwards.
            self._ticks.forward(self._renew_at)
        now_ms = self._clock.now_ms()
        if due := self._take_due(now_ms):
            self._send(due, now_ms)
            return 0.0
        if self._prepare_some():
            return 0.0
        if now_ms >= self._look_at_ms:
            self._look()
            return 0.0
        if self._continue_beginning() or (self._ticks is not None and self._ticks.may_hold_some):
            return 0.0
        next_ms = min(self._heap[0][0] if self._heap else self._look_at_ms, self._look_at_ms)
        return max(next_ms - self._clock.now_ms(), 0.0) / 1_000

    def _continue_beginning(self) -> bool:
        until = monotonic() + MADE_SECONDS
        while self._beginning is not None and monotonic() < until:
            if next(self._beginning, self) is self:
                self._beginning = None
        return self._beginning is not None

    def _take_due(self, now_ms: float) -> list[Ready]:
        due: list[Ready] = []
        while self._heap and self._heap[0][0] <= now_ms and len(due) < SENT_AT_ONCE:
            at_ms, name = heappop(self._heap)
            ready = self._ready.get(name)
            if ready is not None and ready.at_ms == at_ms:
                del self._ready[name]
                due.append(ready)
        return due

    def _send(self, due: list[Ready], now_ms: float) -> None:
        now = [
            sent
            for ready in due
            if (
                sent := self._guarded(ready.schedule.name, ready.revision, partial(queueing, ready, now_ms, self._make))
            )
        ]
        news = publications([message for each in now for message in each.messages])
        asked_ms = steady_ms()
        if self._ticks is not None:
            self._ticks.may_hold_some = True
        answer = self._link.run(
            "schedules/tick", self._prefix, 0, self.token, self._lease_ms, RUNS_KEPT, len(news),
            *chain.from_iterable(news), *chain.from_iterable(each.args for each in now),
        )  # fmt: skip
        if answer == [0]:
            self._lose()
            return
        self._note_time(answer[0], asked_ms)
        for each, outcome, canceled in zip(now, answer[1::2], answer[2::2], strict=True):
            self._note_sent(each.ready, outcome == b"done", answer[0], [identity.decode() for identity in canceled])

    def _note_sent(self, ready: Ready, is_done: bool, wall_ms: float, canceled: list[str]) -> None:  # noqa: FBT001
        if not is_done:
            # The schedule has changed since its tick was prepared.
            self._forget()
            return
        logger.debug("tick of %r queued, %.0f ms late", ready.schedule.name, max(wall_ms - ready.at_ms, 0.0))
        if canceled:
            self._cancel(canceled)
        if ready.next_ms is not None:
            at_ms = ready.schedule.to_send_ms(ready.timing, ready.next_ms)
            if at_ms <= self._seen_until_ms:
                self._again.append(ready._replace(due_ms=ready.next_ms, at_ms=at_ms))

    def _cancel(self, ids: list[str]) -> None:
        try:
            self._on_cancel(ids)
        except Exception as error:  # noqa: BLE001 - failing to reach nodes must not stop ticks
            logger.warning("could not cancel runs %s: %s", ", ".join(ids), error)

    def _advance(self, ready: Ready) -> None:
        schedule, timing, revision, due_ms, at_ms = ready[:5]
        make = partial(prepared, schedule, timing, revision, due_ms, at_ms, self._make)
        self._keep(self._guarded(schedule.name, revision, make))

    # --- waiting -------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        if seconds <= 0:
            return
        if not self.token:
            sleep(seconds)
            return
        if not self._waiting.is_open:
            self._is_asking = False
            self._waiting.open()
        if not self._is_asking:
            # With a short timeout: a frozen leader must not consume the wake-up that the next leader waits for.
            self._is_asking = self._waiting.ask("BRPOP", *self._wake_keys, 1, on_answer=self._on_wake)
        if select.select([self._waiting.socket], [], [], seconds)[0]:
            self._waiting.read()

    def _on_wake(self, answer: Any) -> None:
        self._is_asking = False
        if self._ticks is not None:
            # Even if the wait timed out: another beat may have consumed the wake-up.
            self._ticks.may_hold_some = True
            if isinstance(answer, list) and answer[0].decode() == self._ticks.wake_key:
                return
        if answer is not None:
            # Delayed, so that a series of changes, such as an import, does not cause a full read for each.
            self._look_at_ms = min(self._look_at_ms, self._looked_ms + CHANGED_MS)
