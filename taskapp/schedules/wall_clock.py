"""The time that schedules go by: Redis' own clock, so that beats on different machines agree."""

from __future__ import annotations

import logging

from taskapp.engine.clock import JUMP_MS, steady_ms

logger = logging.getLogger(__name__)


class WallClock:
    """Redis' clock as one process knows it: between two answers, by a clock that nobody sets."""

    def __init__(self) -> None:
        self._reading: tuple[float, float] | None = None  # Redis' clock and the steady one, ms

    def now_ms(self) -> float:
        """Return the time, never ahead of Redis; 0 while nothing is known."""
        if self._reading is None:
            return 0.0
        wall_ms, read_ms = self._reading
        return wall_ms + steady_ms() - read_ms

    def was_set(self, wall_ms: float, sent_ms: float) -> bool:
        """Take note of an answer to what was sent at ``sent_ms``, steady time; say whether Redis' clock was set."""
        read_ms = steady_ms()
        if self._reading is not None and read_ms - sent_ms > JUMP_MS:
            return False  # of an answer that was long on its way, or waited here, nobody knows from when it is
        jump_ms = wall_ms - self.now_ms() if self._reading is not None else 0.0
        self._reading = wall_ms, read_ms
        if abs(jump_ms) <= JUMP_MS:
            return False
        what = "what was passed over is late now" if jump_ms > 0 else "due times that were sent are not sent again"
        direction = "forward" if jump_ms > 0 else "back"
        logger.warning("the clock of Redis was set %s by %.1f s: %s", direction, abs(jump_ms) / 1_000, what)
        return True
