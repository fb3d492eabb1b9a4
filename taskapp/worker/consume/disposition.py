"""What is decided of a message while its run ends, and carried out at the end."""

from __future__ import annotations

from typing import NamedTuple


class Disposition(NamedTuple):
    """What becomes of a message."""

    back: str = ""
    """Given back as this kind of run, see ``Node.give_back``."""
    back_seconds: float = 0.0
    """In how many seconds it is ready again."""
    reason: str = ""
    """Buried for this reason; else it is settled."""
    detail: str = ""
    state: str = "SUCCESS"
    """How the run ended."""


FINISHED = Disposition()
