"""Keeps a node's lease alive and reaps the leases of dead nodes, on a thread of its own.

Neither a long task nor an event loop blocked by a task's code may stop it. A loop that is stuck for
another reason does stop it: nothing would read the answers of Redis, and the node would keep its messages forever.
"""

from __future__ import annotations

import logging
from _queue import Empty, SimpleQueue  # the native one: gevent's would block its hub
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

from redis.exceptions import RedisError

from taskapp.background import start_native_thread, this_process
from taskapp.engine.clock import Clock, Reading, steady_ms
from taskapp.engine.options import Buried, Options
from taskapp.engine.wakeups import Wakeups
from taskapp.redis.link import Link
from taskapp.redis.trouble import broker

logger = logging.getLogger(__name__)

AT_ONCE_SECONDS = 0.005
"""Pause between two beats if the first left work to do, so that Redis serves other clients in between."""


BEAT, END = "beat", "end"
SILENCE_BEATS = 1.5
"""Without a beat of any node for this many intervals, the server was away or refused writes. That is half a lease: a
node that beat a third of a lease earlier, and takes a sixth to come back, still finds its lease alive."""
STILL_LOOK_SECONDS = 0.5
"""How often to check whether a stuck loop runs again, to renew its lease at once."""


def named(flat: Sequence[bytes]) -> list[Buried]:
    """Return the buried messages in a script's answer, which has five parts for each."""
    texts = [part.decode(errors="replace") for part in flat]
    each = zip(texts[::5], texts[1::5], texts[2::5], texts[3::5], texts[4::5], strict=True)
    return [Buried(one, task, reason, queue, int(number)) for one, task, reason, queue, number in each]


class Heartbeat:
    """Beats every third of a lease, and whenever the next lease of any node is due to end."""

    def __init__(
        self, link: Link, options: Options, clock: Clock, on_buried: Callable[[Iterable[Buried]], None],
        about: Callable[[], str] = str, stands_still: Callable[[], bool] = bool,
    ) -> None:  # fmt: skip
        """Create a heartbeat that does not beat yet.

        Args:
            link: A connection of its own.
            options: Delivery options.
            clock: Updated from the server's answers.
            on_buried: Called with messages that this heartbeat buried.
            about: Returns the node's description of itself, as JSON.
            stands_still: Returns whether the loop that reads the server's answers is stuck; called before each beat.
        """
        self._about = about
        self._stands_still = stands_still
        self._still_since = 0.0
        self._woke_late = False
        self._link = link
        self._options = options
        self._clock = clock
        self._orders: SimpleQueue[str] = SimpleQueue()
        """``BEAT`` or ``END``."""
        self._process = this_process()
        self._on_buried = on_buried
        self.epoch = ""
        """The epoch to renew; empty: only reap."""
        self._opened = ""
        self.lost = False
        """Whether ``epoch`` was reaped: the server no longer knows it."""
        self.renewed_at = monotonic()
        """When the last successful renewal was sent (monotonic)."""
        self.is_answered = True
        """Whether the server answered the last beat."""
        self._failures = 0
        """Number of failed beats in a row."""
        self.answered_at = 0.0
        """When the last answered beat was sent (monotonic)."""
        self.is_connected = False
        """Whether its thread may hold a connection."""

    def start(self) -> None:
        """Start the thread that beats."""
        self.is_connected = True
        start_native_thread(self._run, name="heartbeat")

    def stop(self) -> None:
        """Ask the thread to end, without waiting for it."""
        self._orders.put(END)

    def hurry(self) -> None:
        """Beat now, to find out whether the server answers. Does not wait."""
        # One is enough: while the server is away each takes seconds, and all queued ones would run when it is back.
        if self._orders.empty():
            self._orders.put(BEAT)

    def begin(self, epoch: str) -> None:
        """Switch to an epoch that is just being opened; renew it once it is ``opened``."""
        self.renewed_at = monotonic()
        self.epoch = epoch
        self.lost = False

    def opened(self, epoch: str) -> None:
        """Record that the server knows ``epoch``."""
        self._opened = epoch

    @property
    def was_opened(self) -> bool:
        """Whether the server has ever known ``epoch``."""
        return bool(self.epoch) and self._opened == self.epoch

    def holds(self) -> bool:
        """Return whether the lease is certain to be alive, so that no other node can have its messages."""
        return not self.lost and monotonic() < self.renewed_at + self._options.lease_seconds

    def beat(self) -> float:
        """Beat once; return the number of seconds until the next beat."""
        options, epoch = self._options, self.epoch if self.was_opened and not self._is_still() else ""
        sent_at, sent_ms = monotonic(), steady_ms()
        interval = options.lease_seconds / 3
        about = self._about() if epoch else ""
        now, wall, offset, alive, next_end, reaped, buried, more = self._link.run(
            "beat", options.prefix, self._clock.predicted_ms(), epoch, options.lease_ms, options.crash_limit,
            options.dead_letters_limit, int(options.parked_seconds * 1_000), int(interval * SILENCE_BEATS * 1_000),
            about,
        )  # fmt: skip
        self.answered_at = sent_at
        if epoch and epoch == self.epoch:
            if alive:
                self.renewed_at = sent_at
            else:
                self.lost = True
        self._note_time(Reading(now, wall, offset), sent_ms)
        if reaped or buried:
            logger.warning("reaped %d messages of dead nodes, buried %d", reaped, len(buried) // 5)
            self._on_buried(named(buried))
        # The lease that ends next is checked when it ends, not up to a beat later.
        until_end = (next_end - now) / 1_000 if next_end else interval
        if self._still_since:
            interval = min(interval, STILL_LOOK_SECONDS)
        return AT_ONCE_SECONDS if more else min(interval, max(until_end, 0.05) + 0.005)

    def _is_still(self) -> bool:
        """Return whether to let the lease end because the loop is stuck; log when that begins and ends."""
        if self._woke_late:
            return bool(self._still_since)
        is_still = self._stands_still()
        if is_still and not self._still_since:
            self._still_since = monotonic()
            logger.error(
                "the loop that reads the broker is stuck although it runs no task: its lease is not renewed, and other "
                "nodes get its messages in %.0f s unless it recovers",
                max(0.0, self.renewed_at + self._options.lease_seconds - monotonic()),
                extra={"action": "lease_not_renewed"},
            )  # fmt: skip
        elif self._still_since and not is_still:
            logger.warning(
                "the loop that reads the broker runs again after %.1f s", monotonic() - self._still_since,
                extra={"action": "lease_renewed_again"},
            )  # fmt: skip
            self._still_since = 0.0
        return is_still

    def _note_time(self, reading: Reading, sent_ms: float) -> None:
        corrected = self._clock.observe(reading, sent_ms, steady_ms())
        if corrected is not None:
            logger.warning("the clock of Redis was changed; the engine keeps its own time, %d ms off", corrected)
            self._link.run(
                "correct", self._options.prefix, 0, reading.offset_ms, corrected, self._options.lease_ms
            )  # fmt: skip

    def _next_order(self, wait_seconds: float) -> str:
        """Return the next order: ``BEAT`` after ``wait_seconds``, unless another one arrives earlier."""
        try:
            return self._orders.get(timeout=wait_seconds) if wait_seconds else self._orders.get_nowait()
        except Empty:
            return BEAT

    def _run(self) -> None:
        wait_seconds, wakeups = 0.0, Wakeups()
        while self._next_order(wait_seconds) != END:
            if this_process() is not self._process:
                return
            self._woke_late = wakeups.is_late()
            wait_seconds = self.beat_or_wait()
            wakeups.expect(wait_seconds)
        self._link.close()
        self.is_connected = False

    def beat_or_wait(self) -> float:
        """Beat once, or record that the beat failed; return the number of seconds until the next one."""
        try:
            wait_seconds = self.beat()
        except Exception as error:  # nothing else renews the lease, and nothing restarts this thread
            self._failures += 1
            is_away = isinstance(error, RedisError)
            self.is_answered = self.is_answered and not is_away
            if is_away:
                broker.failed(self, error)
            elif self._failures == 1:
                logger.warning("a heartbeat failed: %r", error, exc_info=True)
            # Retry often, so that the lease is renewed as soon as the server is back.
            return min(0.1 * self._failures, self._options.lease_seconds / 6, 1.0)
        self.is_answered = True
        if self._failures:
            broker.works(self)
        self._failures = 0
        return wait_seconds
