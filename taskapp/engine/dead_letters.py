"""Dead letters: messages that could not be delivered or run, kept byte for byte with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from taskapp.engine.counters import counted_fields
from taskapp.engine.dead_pages import NAMED_BYTES_MOST, DeadPage, DeadPages, Listed, Wanted
from taskapp.engine.envelope import named_in_json, unseal
from taskapp.engine.settlement import STEP_LETTER, STEP_RUN, Settlement
from taskapp.errors import KeyTaken, NotSettled
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link

REASONS = ("crashed", "failed", "rejected", "unknown task", "unreadable")
REFUSED_BY_LIMITS = "by its limits: "
"""Begins the error of a letter that the engine rejected; why follows."""
PAGE = 500
PURGED_AT_ONCE = 250
"""Takes Redis about a millisecond."""


class DeadLetter(NamedTuple):
    """One dead letter."""

    queue: str
    number: int
    """Increases within its queue; ``queue/number`` names the letter."""
    reason: str
    """One of ``REASONS``."""
    id: str
    """Id of the task; empty if the message cannot be read."""
    task: str
    priority: int
    deliveries: int
    crashes: int
    buried_at: float
    """Unix seconds, by the engine's time."""
    node: str
    error: str
    raw: bytes
    """The message as it was received."""

    @property
    def name(self) -> str:
        """Name of the letter in commands."""
        return f"{self.queue}/{self.number}"


class DeadLetters:
    """Lists, replays and purges dead letters; errors are those of ``Link``."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._keys = Keys(prefix)

    def count(self) -> dict[tuple[str, str], int]:
        """Return the number of letters by queue and reason."""
        pairs = [(queue, reason) for queue in self._queues() for reason in REASONS]
        answers = self._link.pipeline([("ZCARD", self._keys("dead", *pair)) for pair in pairs])
        return {pair: number for pair, number in zip(pairs, answers, strict=True) if number}

    def find(
        self, queue: str | None = None, reason: str | None = None, task: str | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """Return up to ``limit`` letters that match all given criteria, latest first."""
        listed = list(islice(self.walk(queue, reason, task), limit))
        found: dict[tuple[str, int], DeadLetter] = {}
        for start in range(0, len(listed), PAGE):
            by_queue: dict[str, list[int]] = {}
            for letter in listed[start : start + PAGE]:
                by_queue.setdefault(letter.queue, []).append(letter.number)
            for one_queue, numbers in by_queue.items():
                found |= {(one_queue, letter.number): letter for letter in self._read(one_queue, numbers)}
        return [found[key] for each in listed if (key := (each.queue, each.number)) in found]

    def walk(self, queue: str | None = None, reason: str | None = None, task: str | None = None) -> Iterator[Listed]:
        """Yield all matching letters, latest first, without their messages; reads page by page.

        Letters replayed or purged while it runs do no harm; letters buried while it runs are not seen.
        """
        wanted, cursor = Wanted(queue or "", reason or ""), ""
        while True:
            page = self.page(wanted, cursor, PAGE)
            yield from (letter for letter in page.letters if task is None or self._task_of(letter) == task)
            if not (cursor := page.cursor):
                return

    def _task_of(self, listed: Listed) -> str:
        if listed.task or listed.message_bytes <= NAMED_BYTES_MOST:
            return listed.task
        letter = self.get(listed.queue, listed.number)
        return letter.task if letter is not None else ""

    def page(self, wanted: Wanted, cursor: str = "", limit: int = 50) -> DeadPage:
        """Return a page of up to ``limit`` letters without their messages, see ``DeadPages.page``."""
        return DeadPages(self._link, self._prefix, sorted(self.count())).page(wanted, cursor, limit)

    def now(self) -> float:
        """Return the engine's time in Unix seconds, the clock of ``buried_at``."""
        (seconds, micros), offset_ms = self._link.pipeline([("TIME",), ("HGET", self._keys("clock"), "offset")])
        return int(seconds) + int(micros) / 1_000_000 + float(offset_ms or 0) / 1_000

    def get(self, queue: str, number: int) -> DeadLetter | None:
        """Return one letter; ``None`` if it does not exist."""
        return next(iter(self._read(queue, [number])), None)

    def of_task(self, task_id: str) -> DeadLetter | None:
        """Return the latest letter of a task; ``None`` if it has none. Walks all letters."""
        found = next((letter for letter in self.walk() if letter.id == task_id), None)
        return self.get(found.queue, found.number) if found is not None else None

    def replay(self, queue: str, number: int, to_queue: str | None = None, blob: bytes | None = None) -> bool:
        """Put a letter back into its queue, or another one; return whether it existed.

        Args:
            queue: The queue in which it was buried.
            number: Its number in that queue.
            to_queue: The queue to put it into; default: its own.
            blob: A message to send instead, sealed or as kombu writes it.

        Raises:
            KeyTaken: Another task has its unique key; the letter stays.
        """
        args = (self._prefix, 0, queue, number, to_queue or queue, blob or b"")
        answer = self._link.run("replay", *args)
        if isinstance(answer, bytes):
            raise KeyTaken(f"{queue}/{number}", answer.decode(errors="replace"))
        return bool(answer)

    def purge(self, queue: str, numbers: Iterable[int]) -> int:
        """Delete letters permanently; return how many existed."""
        wanted = list(numbers)
        return sum(
            self._link.run("purge", self._prefix, 0, queue, *wanted[start : start + PURGED_AT_ONCE])
            for start in range(0, len(wanted), PURGED_AT_ONCE)
        )

    def settle(self, queue: str, number: int, settlement: Settlement) -> bool:
        """Settle the failure of a task that the engine itself buried; return whether it was still unreported.

        It happens once, even if several nodes try. A letter that has been replayed no longer counts as failed.

        Raises:
            NotSettled: The server refused a part of it; the rest may be done, and all of it will be tried again.
        """
        counted = (STEP_RUN, *counted_fields(settlement.run)) if settlement.run is not None else ()
        steps = (STEP_LETTER, f"{number}.0:0:{queue}", *settlement.steps(), *counted)
        stale, failed, _ = self._link.run("settle", self._prefix, 0, "", 0, "", *steps)
        if failed:
            raise NotSettled(f"{queue}/{number}", failed[2].decode(errors="replace"))
        return not stale

    def _queues(self) -> list[str]:
        return sorted(queue.decode() for queue in self._link.command("SMEMBERS", self._keys("queues")))

    def _read(self, queue: str, numbers: list[int]) -> Iterator[DeadLetter]:
        raws, abouts = self._link.pipeline(
            [("HMGET", self._keys(kind, queue), *numbers) for kind in ("dead_raw", "dead_about")]
        )
        for number, raw, about in zip(numbers, raws, abouts, strict=True):
            if raw is not None and about is not None:
                yield _letter(queue, number, raw, json.loads(about.decode(errors="replace")))


def _letter(queue: str, number: int, raw: bytes, about: dict[str, Any]) -> DeadLetter:
    identity, task = about["id"], about["task"]
    if not task:
        identity, task = named_in_json(unseal(raw).body)
    return DeadLetter(
        queue=queue, number=number, reason=about["reason"], id=identity, task=task, priority=int(about["priority"]),
        deliveries=int(about["deliveries"]), crashes=int(about["crashes"]), buried_at=about["buried_at"] / 1_000,
        node=about["node"], error=about["error"], raw=raw,
    )  # fmt: skip
