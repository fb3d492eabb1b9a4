"""What to do with a message, decided while its run ends and carried out afterwards."""

from __future__ import annotations

from typing import NamedTuple


class Disposition(NamedTuple):
    """What to do with a message once its run ends."""

    back: str = ""
    """If set, requeue the message and report this kind of run, see ``Node.give_back``."""
    back_seconds: float = 0.0
    """Delay before the requeued message is ready again."""
    reason: str = ""
    """If set, bury the message for this reason; otherwise settle it."""
    detail: str = ""
    state: str = "SUCCESS"
    """Celery's state of the ended run."""


FINISHED = Disposition()
