"""The task that ends a chord."""

from __future__ import annotations

from typing import Any

from taskapp.redis.outage import ResultServerGone
from taskapp.results.chords import FINISH_CHORD

AGAIN_SECONDS = 1.0
"""How long it waits, outside of any slot, for a server of results that is away."""


def install(app: Any) -> None:
    """Give ``app`` the task type. It keeps no result and sends no events: nobody has asked for it by name."""

    @app.task(
        shared=False, name=FINISH_CHORD, ignore_result=True, send_events=False, acks_late=True, max_retries=None,
        autoretry_for=(ResultServerGone,), default_retry_delay=AGAIN_SECONDS,
    )  # fmt: skip
    def finish_chord(chord_id: str) -> None:
        """Send the body of a chord, or fail it. Running it again sends nothing."""
        app.backend.finish_chord(chord_id)
