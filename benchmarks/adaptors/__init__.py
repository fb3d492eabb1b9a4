"""One file a framework. Each has its app with the tasks of ``benchmarks.tasks``, and a ``Client``.

They are imported in the framework's own environment: beside it only the standard library is there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

STORE_URL = os.environ.get("BENCH_STORE_URL", "")
"""The Redis or PostgreSQL of this measurement."""
SLOTS = int(os.environ.get("BENCH_SLOTS", "1"))
"""How many tasks a worker may run at once, where that is not said on its command line."""

Call = tuple[str, tuple[Any, ...]]
"""The name of a task in ``benchmarks.tasks`` without ``_async``, and its arguments."""


class Client(Protocol):
    """What the benchmark asks of a framework. Frameworks that are not async block in these."""

    async def open(self) -> None:
        """Connect; called once in the loop that all other calls are made in."""

    async def close(self) -> None:
        """Let go of the connections."""

    async def submit(self, name: str, *arguments: Any) -> Any:
        """Submit one task as the documentation shows it; return a handle to it."""

    async def submit_many(self, calls: Sequence[Call]) -> list[Any]:
        """Submit many in the framework's fastest documented way; return a handle for each."""

    async def submit_at(self, due_at: float, name: str, *arguments: Any) -> Any:
        """Submit one task to run at ``due_at``, Unix seconds; return a handle to it."""

    async def submit_many_at(self, due_at: float, calls: Sequence[Call]) -> list[Any]:
        """Submit many that are due at the same time; only where a million of them can wait."""

    async def schedule(self, jobs: Sequence[tuple[str, float]], every_seconds: float) -> None:
        """Add timed jobs: name and first due time, Unix seconds; only where there is a beat."""

    async def is_done(self, handle: Any) -> bool:
        """Say whether the result of the task is stored."""

    async def result(self, handle: Any) -> Any:
        """Wait for the result as the documentation shows it, and return it."""
