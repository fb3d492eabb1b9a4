"""Reads rates as Celery writes them: ``"100/m"`` is a hundred per minute; a number is per second."""

from __future__ import annotations

from math import isfinite
from numbers import Real
from typing import Any, NamedTuple

PERIODS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000}
MOST = 1e9
"""Maximum of starts, or units, in a period."""
BURST_SECONDS = 0.1
"""Without ``rate_burst``, what the rate allows in this time may start at once, so that a node which wakes a moment late
wastes no turn."""


class BadRate(ValueError):
    """A text or number is not a rate; the error says what is wrong with it."""


class PerPeriod(NamedTuple):
    """A rate."""

    limit: float
    period_ms: int

    @property
    def usual_burst(self) -> float:
        """Number of units that may start at once unless ``rate_burst`` says otherwise; at least 1."""
        return max(1.0, self.limit * 1_000 / self.period_ms * BURST_SECONDS)


def read_rate(value: Any) -> PerPeriod | None:
    """Return the rate in ``value``; ``None`` for ``None`` and an empty text: no limit, as in Celery.

    Raises:
        BadRate: It is not a number above zero, with or without a unit of time.
    """
    if value is None or value == "":
        return None
    number, unit = value, "s"
    if isinstance(value, str):
        number, slash, unit = (part.strip() for part in value.partition("/"))
        if not slash:
            unit = "s"
        elif unit not in PERIODS_MS:
            raise BadRate(f"{unit!r} is not a unit of time; use s, m or h, as in '100/m'")
    limit = _number(number)
    if limit is None:
        raise BadRate("its number cannot be read; use a number per second, or a text such as '100/m'")
    if limit <= 0:
        raise BadRate("it must be above zero; use None for no limit")
    if limit > MOST:
        raise BadRate(f"it is above {MOST:,.0f}; use None for no limit")
    return PerPeriod(limit, PERIODS_MS[unit])


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | Real):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) else None
