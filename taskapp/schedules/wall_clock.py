"""The clock of schedules: Redis' own, so that beats on different machines agree."""

from __future__ import annotations

import logging

from taskapp.engine.clock import JUMP_MS, steady_ms

logger = logging.getLogger(__name__)


class WallClock:
    """Redis' clock as known to this process, advanced between two answers by a steady local clock."""

    def __init__(self) -> None:
        self._reading: tuple[float, float] | None = None  # Redis' clock and the steady one, ms

    def now_ms(self) -> float:
        """Return the time in Unix ms, never ahead of Redis; 0 before the first answer."""
        if self._reading is None:
            return 0.0
        wall_ms, read_ms = self._reading
        return wall_ms + steady_ms() - read_ms

    def was_set(self, wall_ms: float, sent_ms: float) -> bool:
        """Update the clock from an answer to a request sent at ``sent_ms`` (steady); return whether Redis' was set."""
        read_ms = steady_ms()
        if self._reading is not None and read_ms - sent_ms > JUMP_MS:
            return False  # an answer that took long or waited here: when Redis read its clock is unknown
        jump_ms = wall_ms - self.now_ms() if self._reading is not None else 0.0
        self._reading = wall_ms, read_ms
        if abs(jump_ms) <= JUMP_MS:
            return False
        effect = "due times in between are late now" if jump_ms > 0 else "due times already sent are not sent again"
        direction = "forward" if jump_ms > 0 else "back"
        logger.warning("the clock of Redis was set %s by %.1f s: %s", direction, abs(jump_ms) / 1_000, effect)
        return True
