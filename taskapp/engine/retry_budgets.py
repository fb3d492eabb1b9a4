"""How many retries of a task type are allowed, see ``budgets.lua``."""

from __future__ import annotations

from typing import NamedTuple

LEAST_RETRIES = 10
"""Retries in a period that a share of runs always allows: else a type with few runs would never be retried."""


class RetryBudget(NamedTuple):
    """How many retries of a task type are allowed, on all nodes together."""

    period_ms: int
    most: float = 0
    """Maximum in any period; 0: ``share`` counts."""
    share: float = 0
    """Maximum as a share of the runs in the last period, from 0 to 1."""
