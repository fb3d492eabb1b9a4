"""The task that ends a chord."""

from __future__ import annotations

from typing import Any

from taskapp.redis.outage import ResultServerGone
from taskapp.results.chords import FINISH_CHORD

AGAIN_SECONDS = 1.0
"""Delay before a retry while the result server is away; it occupies no slot."""


def install(app: Any) -> None:
    """Register the task type with ``app``. It keeps no result and sends no events, because no user submits it."""

    @app.task(
        shared=False, name=FINISH_CHORD, ignore_result=True, send_events=False, acks_late=True, max_retries=None,
        autoretry_for=(ResultServerGone,), default_retry_delay=AGAIN_SECONDS,
    )  # fmt: skip
    def finish_chord(chord_id: str) -> None:
        """Send the body of a chord, or fail it. Running it again sends nothing."""
        app.backend.finish_chord(chord_id)
