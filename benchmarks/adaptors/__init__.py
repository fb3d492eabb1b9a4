"""One file per framework, with its app, which has the tasks of ``benchmarks.tasks``, and a ``Client``.

They are imported in the framework's own environment, which contains only it and the standard library.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

STORE_URL = os.environ.get("BENCH_STORE_URL", "")
"""URL of the Redis or PostgreSQL of this measurement."""
SLOTS = int(os.environ.get("BENCH_SLOTS", "1"))
"""How many tasks a worker may run at once, if its command line does not set it."""

Call = tuple[str, tuple[Any, ...]]
"""The name of a task in ``benchmarks.tasks`` without ``_async``, and its arguments."""


class Client(Protocol):
    """What the benchmark needs from a framework. Frameworks that are not async block in these methods."""

    async def open(self) -> None:
        """Connect; called once, in the loop that makes all other calls."""

    async def close(self) -> None:
        """Close the connections."""

    async def submit(self, name: str, *arguments: Any) -> Any:
        """Submit one task as the framework's documentation shows; return its handle."""

    async def submit_many(self, calls: Sequence[Call]) -> list[Any]:
        """Submit many in the framework's fastest documented way; return a handle for each."""

    async def submit_at(self, due_at: float, name: str, *arguments: Any) -> Any:
        """Submit one task to run at ``due_at``, Unix seconds; return a handle to it."""

    async def submit_many_at(self, due_at: float, calls: Sequence[Call]) -> list[Any]:
        """Submit many that are due at the same time; only for frameworks in which a million of them can wait."""

    async def schedule(self, jobs: Sequence[tuple[str, float]], every_seconds: float) -> None:
        """Add timed jobs: name and first due time, Unix seconds; only for frameworks with a beat."""

    async def is_done(self, handle: Any) -> bool:
        """Return whether the result of the task is stored."""

    async def result(self, handle: Any) -> Any:
        """Wait for the result as the framework's documentation shows, and return it."""
