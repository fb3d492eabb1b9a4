"""``taskapp.add``: the smallest possible task."""

from __future__ import annotations

from taskapp.tasks.shared.shipped import shipped


@shipped(name="taskapp.add", typed=True)
def add(x: int | float, y: int | float) -> int | float:
    """Return ``x + y``. Running it again returns the same."""
    return x + y
