"""The engine's time as one process knows it: Redis' clock, held against a clock that never jumps."""

from __future__ import annotations

import time
from typing import NamedTuple

JUMP_MS = 1_000
"""A difference no delay explains."""

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_ms() -> float:
    """Return milliseconds of a clock nobody can set, which also counts while the machine sleeps."""
    return time.clock_gettime(_STEADY) * 1_000


class Reading(NamedTuple):
    """What an answer of the server said of time, in milliseconds."""

    now_ms: int
    """The engine's time."""
    wall_ms: int
    """Redis' own clock."""
    offset_ms: int


class Clock:
    """Predicts the engine's time and notices when Redis' own clock was set.

    An answer was made after its question was sent and before it was read; so the time in it is
    known to lie between the two readings of the steady clock, and what lies outside was a jump.
    """

    def __init__(self) -> None:
        self._reference: tuple[float, float, float] | None = None  # engine ms, steady ms, uncertainty ms
        self._correction: tuple[int, int] | None = None
        self.ahead_seconds = 0.0
        """How far the engine's time was ahead of this machine's wall clock when it was last observed, at least."""

    def predicted_ms(self) -> int:
        """Return the engine's time at the earliest, or 0 while nothing is known."""
        if self._reference is None:
            return 0
        engine_ms, read_ms, _ = self._reference
        return int(engine_ms + steady_ms() - read_ms)

    def now_ms(self) -> int:
        """Return the engine's time, by this machine's clock while nothing is known."""
        return self.predicted_ms() or int(time.time() * 1_000)

    def ahead_of_here_seconds(self) -> float:
        """Return how far the engine's time may be ahead of this machine's wall clock; 0 when they may be equal."""
        if self._reference is None:
            return 0.0
        least_seconds = (self.predicted_ms() - time.time() * 1_000) / 1_000
        most_seconds = least_seconds + self._reference[2] / 1_000
        return 0.0 if least_seconds <= 0.001 and most_seconds >= -0.001 else most_seconds

    def observe(self, reading: Reading, sent_ms: float, read_ms: float) -> int | None:
        """Take note of an answer; return the offset that undoes a jump, if there was one.

        Args:
            reading: What the answer said.
            sent_ms: Steady time when the question was sent.
            read_ms: Steady time when the answer was read.
        """
        real_ms = reading.wall_ms + reading.offset_ms
        if self._reference is not None:
            engine_ms, then_ms, uncertainty_ms = self._reference
            latest_ms = engine_ms + (read_ms - then_ms) + uncertainty_ms
            # Whose correction others took back is itself the odd one out, and follows them.
            if real_ms > latest_ms + JUMP_MS and reading.offset_ms in (self._correction or [reading.offset_ms]):
                corrected_ms = int(reading.offset_ms - (real_ms - latest_ms))
                self._correction = reading.offset_ms, corrected_ms
                return corrected_ms
            self._correction = None
            # A slow answer tells less than what is known already.
            if real_ms <= latest_ms and read_ms - sent_ms > uncertainty_ms + 200 and read_ms - then_ms < 60_000:
                return None
        # At the latest the answer was made when it was read: so predictions never run ahead.
        self._reference = (real_ms, read_ms, read_ms - sent_ms)
        self.ahead_seconds = (real_ms + steady_ms() - read_ms) / 1_000 - time.time()
        return None
