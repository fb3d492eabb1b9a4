"""The names of all options that limit tasks."""

from __future__ import annotations

UNIQUE = ("unique", "unique_key", "unique_for", "on_duplicate", "debounce", "debounce_at_most")
RATE = ("rate_burst", "rate_key", "rate_cost", "rate_scope")
"""Without ``rate_limit``, which is Celery's."""
CONCURRENCY = ("max_concurrency", "concurrency_key", "on_busy")
FAIRNESS = ("fair_key",)
CIRCUIT = ("circuit_breaker",)

OF_TYPES = (*UNIQUE, *RATE, *CONCURRENCY, *FAIRNESS, *CIRCUIT)
"""Options of a task type that are not Celery's."""
OF_CALLS = frozenset({*UNIQUE, "rate_key", "rate_cost", "concurrency_key", "on_busy", "fair_key"})
"""Options of one call. Keys are templates in a task type, and values in a call."""
OF_TYPES_ALONE = frozenset({"rate_limit", "rate_burst", "rate_scope", "max_concurrency", "circuit_breaker"})
"""Numbers that all tasks of a type share: a call cannot change them."""
