"""The header that carries a deadline from a task to all tasks that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

DEADLINE_HEADER = "taskapp_deadline"
"""Header of a task: after this time, neither it nor what it submits begins; Unix seconds by the engine's clock."""


def deadline_in(headers: Mapping[str, Any]) -> float | None:
    """Return the deadline in ``headers``; ``None``: there is none, or it is not a time."""
    value = headers.get(DEADLINE_HEADER)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)
