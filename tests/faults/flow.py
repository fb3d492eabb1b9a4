"""A random flow of tasks of all kinds, and what must become of each."""

from __future__ import annotations

import random
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from tests.faults.producers import chain_of, chord_of, step

Kind = Literal["plain", "delayed", "retried", "failing", "once", "revoked", "chain", "chord", "failing_chord"]
WEIGHTS: dict[Kind, int] = {
    "plain": 10, "delayed": 4, "retried": 3, "failing": 2, "once": 2, "revoked": 2, "chain": 3, "chord": 2,
    "failing_chord": 1,
}  # fmt: skip
SECONDS = (0.005, 0.005, 0.05, 0.2, 0.6, 1.5)
QUEUES = ("default", "high")


@dataclass(frozen=True)
class Piece:
    """One thing to submit, and the value its last task must end with."""

    kind: Kind
    workflow: dict[str, Any]
    value: Any = None
    revoked_id: str | None = None


def random_flow(rng: random.Random, count: int, kinds: Collection[str]) -> list[Piece]:
    """Return ``count`` pieces; ``kinds`` are the endings of pacing tasks that the nodes can run."""
    return [_Maker(rng, kinds).piece(number) for number in range(count)]


class _Maker:
    def __init__(self, rng: random.Random, kinds: Collection[str]) -> None:
        self._rng, self._kinds = rng, list(kinds)

    def piece(self, number: int) -> Piece:
        [kind] = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        made: Piece = getattr(self, f"_{kind}")(number)
        return made

    @property
    def _seconds(self) -> float:
        return self._rng.choice(SECONDS)

    def _number(self, value: int, **options: Any) -> dict[str, Any]:
        options = {"queue": self._rng.choice(QUEUES), "priority": self._rng.choice((0, 0, 5, 9)), **options}
        return step(f"faults.number{self._rng.choice(self._kinds)}", value, self._seconds, **options)

    def _plain(self, number: int) -> Piece:
        return Piece("plain", self._number(number), number)

    def _delayed(self, number: int) -> Piece:
        return Piece("delayed", self._number(number, countdown=self._rng.uniform(0.2, 5.0)), number)

    def _retried(self, _: int) -> Piece:
        retries = self._rng.choice((1, 2, 3))
        return Piece("retried", step("faults.fail_until", retries, 0.3), retries)

    def _failing(self, _: int) -> Piece:
        return Piece("failing", step("faults.refuse", self._seconds))

    def _once(self, _: int) -> Piece:
        seconds = self._seconds
        return Piece("once", step("faults.hold_once", seconds), seconds)

    def _revoked(self, number: int) -> Piece:
        task_id = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        return Piece("revoked", self._number(number, countdown=4.0, task_id=task_id), number, task_id)

    def _chain(self, number: int) -> Piece:
        return Piece("chain", chain_of(self._number(number), *[step("faults.receive")] * 2), number)

    def _chord(self, number: int) -> Piece:
        values = list(range(number, number + self._rng.choice((2, 5, 9))))
        return Piece("chord", chord_of([self._number(value) for value in values], step("faults.receive")), values)

    def _failing_chord(self, number: int) -> Piece:
        header = [self._number(value) for value in range(number, number + 4)]
        header[self._rng.randrange(4)] = step("faults.refuse", self._seconds)
        return Piece("failing_chord", chord_of(header, step("faults.receive"), step("faults.errback")))
