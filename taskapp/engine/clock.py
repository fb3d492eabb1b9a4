"""The engine's time as one process knows it: the clock of Redis, checked against a clock that never jumps."""

from __future__ import annotations

import time
from typing import NamedTuple

JUMP_MS = 1_000
"""A difference that no delay explains."""

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_ms() -> float:
    """Return milliseconds of a clock that cannot be set and keeps running while the machine sleeps."""
    return time.clock_gettime(_STEADY) * 1_000


class Reading(NamedTuple):
    """The time in an answer of the server, in milliseconds."""

    now_ms: int
    """The engine's time."""
    wall_ms: int
    """The clock of Redis."""
    offset_ms: int


class Clock:
    """Predicts the engine's time and detects when the clock of Redis was set.

    The server answers after the request was sent and before the answer was read. So its time lies
    between the two readings of the steady clock; a time outside them means that the clock jumped.
    """

    def __init__(self) -> None:
        self._reference: tuple[float, float, float] | None = None  # engine ms, steady ms, uncertainty ms
        self._correction: tuple[int, int] | None = None
        self.ahead_seconds = 0.0
        """How far the engine's time was ahead of this machine's wall clock at the last observation, at least."""

    def predicted_ms(self) -> int:
        """Return the earliest the engine's time can be, or 0 before the first observation."""
        if self._reference is None:
            return 0
        engine_ms, read_ms, _ = self._reference
        return int(engine_ms + steady_ms() - read_ms)

    def now_ms(self) -> int:
        """Return the engine's time, or this machine's wall clock before the first observation."""
        return self.predicted_ms() or int(time.time() * 1_000)

    def ahead_of_here_seconds(self) -> float:
        """Return how far the engine's time may be ahead of this machine's wall clock; 0 if they may be equal."""
        if self._reference is None:
            return 0.0
        least_seconds = (self.predicted_ms() - time.time() * 1_000) / 1_000
        most_seconds = least_seconds + self._reference[2] / 1_000
        return 0.0 if least_seconds <= 0.001 and most_seconds >= -0.001 else most_seconds

    def observe(self, reading: Reading, sent_ms: float, read_ms: float) -> int | None:
        """Record an answer; return the offset that undoes a jump, or ``None`` if there was none.

        Args:
            reading: The time in the answer.
            sent_ms: Steady time when the request was sent.
            read_ms: Steady time when the answer was read.
        """
        real_ms = reading.wall_ms + reading.offset_ms
        if self._reference is not None:
            engine_ms, then_ms, uncertainty_ms = self._reference
            latest_ms = engine_ms + (read_ms - then_ms) + uncertainty_ms
            # If others reverted this process's correction, this process is the odd one out, and follows them.
            if real_ms > latest_ms + JUMP_MS and reading.offset_ms in (self._correction or [reading.offset_ms]):
                corrected_ms = int(reading.offset_ms - (real_ms - latest_ms))
                self._correction = reading.offset_ms, corrected_ms
                return corrected_ms
            self._correction = None
            # A slow answer is less precise than what is already known.
            if real_ms <= latest_ms and read_ms - sent_ms > uncertainty_ms + 200 and read_ms - then_ms < 60_000:
                return None
        # Assume that the answer was made when it was read, so that predictions never run ahead.
        self._reference = (real_ms, read_ms, read_ms - sent_ms)
        self.ahead_seconds = (real_ms + steady_ms() - read_ms) / 1_000 - time.time()
        return None
