"""Keeps a node's lease alive, and reaps the leases of nodes that died, on a thread of its own.

Neither a blocked event loop nor a long task may stop it; only the process's end does.
"""

from __future__ import annotations

import logging
import os
import sys
from _queue import Empty, SimpleQueue  # the native one: gevent's would block its hub
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any

from redis.exceptions import RedisError

from taskapp.broker.clock import Clock, Reading, steady_ms
from taskapp.broker.options import Buried, Options
from taskapp.redis import Link

logger = logging.getLogger(__name__)

AT_ONCE_SECONDS = 0.01
"""Between two beats of which the first left something to do: others are answered meanwhile."""


def named(flat: Sequence[bytes]) -> list[Buried]:
    """Return what a script said was buried: five parts of each."""
    texts = [part.decode(errors="replace") for part in flat]
    each = zip(texts[::5], texts[1::5], texts[2::5], texts[3::5], texts[4::5], strict=True)
    return [Buried(one, task, reason, queue, int(number)) for one, task, reason, queue, number in each]


def native_thread(target: Callable[[], None]) -> None:
    """Run ``target`` on a real thread, also where gevent has replaced threads by greenlets."""
    start: Callable[..., Any]
    if "gevent.monkey" in sys.modules:
        start = sys.modules["gevent.monkey"].get_original("_thread", "start_new_thread")
    else:
        from _thread import start_new_thread as start
    start(target, ())


class Heartbeat:
    """Beats every third of a lease, and again when the next lease is due to end."""

    def __init__(
        self, link: Link, options: Options, clock: Clock, on_buried: Callable[[Iterable[Buried]], None],
        about: Callable[[], str] = str,
    ) -> None:  # fmt: skip
        self._about = about
        self._link = link
        self._options = options
        self._clock = clock
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._pid = os.getpid()
        self._on_buried = on_buried
        self.epoch = ""
        """The epoch to renew; empty: only reap."""
        self._opened = ""
        self.lost = False
        """Whether ``epoch`` was reaped: the server no longer knows it."""
        self.renewed_at = monotonic()
        """When the last renewal was sent that succeeded."""
        self.is_answered = True
        """Whether the server answered the last time it was asked."""

    def start(self) -> None:
        """Begin."""
        native_thread(self._run)

    def stop(self) -> None:
        """End. Does not wait."""
        self._stop.put(None)

    def begin(self, epoch: str) -> None:
        """Go over to another epoch, one that is being opened at this moment; renew it once it is ``opened``."""
        self.renewed_at = monotonic()
        self.epoch = epoch
        self.lost = False

    def opened(self, epoch: str) -> None:
        """Take note that the server knows ``epoch``."""
        self._opened = epoch

    def holds(self) -> bool:
        """Say whether the lease is certain to be alive: no other node may have its messages yet."""
        return not self.lost and monotonic() < self.renewed_at + self._options.lease_seconds

    def beat(self) -> float:
        """Beat once; return in how many seconds to beat again."""
        options, epoch = self._options, self.epoch if self.epoch == self._opened else ""
        sent_at, sent_ms = monotonic(), steady_ms()
        interval = options.lease_seconds / 3
        about = self._about() if epoch else ""
        now, wall, offset, alive, next_end, reaped, buried, more = self._link.run(
            "beat", options.prefix, self._clock.predicted_ms(), epoch, options.lease_ms, options.crash_limit,
            options.dead_letters_limit, int(options.parked_seconds * 1_000), int(interval * 2_000) + 500,
            about,
        )  # fmt: skip
        if epoch and epoch == self.epoch:
            if alive:
                self.renewed_at = sent_at
            else:
                self.lost = True
        self._note_time(Reading(now, wall, offset), sent_ms)
        if reaped or buried:
            logger.warning("reaped %d messages of nodes that died, buried %d", reaped, len(buried) // 5)
            self._on_buried(named(buried))
        # Whose lease ends first is looked at when it ends, not up to a beat later.
        until_end = (next_end - now) / 1_000 if next_end else interval
        return AT_ONCE_SECONDS if more else min(interval, max(until_end, 0.05) + 0.005)

    def _note_time(self, reading: Reading, sent_ms: float) -> None:
        corrected = self._clock.observe(reading, sent_ms, steady_ms())
        if corrected is not None:
            logger.warning("the clock of Redis was set; the engine keeps its own time, %d ms off", corrected)
            self._link.run(
                "correct", self._options.prefix, 0, reading.offset_ms, corrected, self._options.lease_ms
            )  # fmt: skip

    def _run(self) -> None:
        wait_seconds, failures = 0.0, 0
        while True:
            try:
                self._stop.get(timeout=wait_seconds) if wait_seconds else self._stop.get_nowait()
                break
            except Empty:
                pass
            if os.getpid() != self._pid:
                return
            try:
                wait_seconds = self.beat()
                self.is_answered = True
                if failures:
                    logger.info("the broker answers again after %d heartbeats that failed", failures)
                failures = 0
            except RedisError as error:
                self.is_answered = False
                failures += 1
                if failures == 1:
                    logger.warning("a heartbeat did not reach the broker: %s", error)
                # Often, so that a lease is renewed as soon as the server is back.
                wait_seconds = min(0.1 * failures, self._options.lease_seconds / 6, 1.0)
        self._link.close()
