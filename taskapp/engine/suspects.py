"""Claims whose tasks may be the reason why their node ends."""

from __future__ import annotations

from typing import NamedTuple


class Suspects(NamedTuple):
    """Claims under suspicion, and how to return them."""

    tags: frozenset[str] = frozenset()
    kind: str = "neighbour"
    """See ``Node.give_back``: ``neighbour``, or ``crashed`` for one that ran alone."""


NOBODY = Suspects()
