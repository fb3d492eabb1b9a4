"""Claims whose tasks seem to be why their node ends."""

from __future__ import annotations

from typing import NamedTuple


class Suspects(NamedTuple):
    """Claims under suspicion, and how they are given back."""

    tags: frozenset[str] = frozenset()
    kind: str = "neighbour"
    """See ``Node.give_back``: ``neighbour``, or ``crashed`` for one that ran alone."""


NOBODY = Suspects()
