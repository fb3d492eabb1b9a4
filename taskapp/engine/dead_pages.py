"""Dead letters a page at a time, the latest first, at a cost that does not grow with how many there are.

Each queue and reason has a sorted set; a page is the head of all of them merged, from a place on.
Messages themselves are not read, only what was written down about them when they were buried.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple

from taskapp.engine.envelope import named_in_json, unseal
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link, all_answered

CHUNK = 200
AFRESH = 2_000
"""After so many places the next are asked for by score: Redis passes over those before them one by one."""
NAMED_BYTES_MOST = 1 << 16
"""A message without a name of its own is searched for one if it takes no more."""


class PagePosition(NamedTuple):
    """Where a letter stands among all: by time, queue, reason and number."""

    score: float
    """When it was buried, ms, as its sorted set has it."""
    queue: str
    reason: str
    number: int


class Listed(NamedTuple):
    """What a list shows of a dead letter."""

    queue: str
    number: int
    reason: str
    id: str
    """Of the task; empty when nobody could read it."""
    task: str
    deliveries: int
    crashes: int
    buried_at: float
    """Unix seconds, by the engine's time."""
    node: str
    error: str
    message_bytes: int

    @property
    def name(self) -> str:
        """How commands name it."""
        return f"{self.queue}/{self.number}"


class DeadPage(NamedTuple):
    """Some dead letters, the latest first."""

    letters: list[Listed]
    cursor: str
    """Where the next page begins; empty: this is the last."""


class Wanted(NamedTuple):
    """Which letters; empty: any."""

    queue: str = ""
    reason: str = ""
    text: str = ""
    """In the id, the task type or the error; case does not matter."""
    until: float = 0.0
    """Unix seconds: none buried later; 0: no bound."""

    def fits(self, letter: Listed) -> bool:
        """Say whether ``letter`` has the text."""
        text = self.text.casefold()
        return not text or any(text in part.casefold() for part in (letter.task, letter.id, letter.error))


class DeadPages:
    """Reads pages.

    Args:
        link: The connection to their server.
        prefix: The prefix of its keys.
        sets: Queue and reason of each set that has letters, see ``DeadLetters.count``.
    """

    def __init__(self, link: Link, prefix: str, sets: Sequence[tuple[str, str]]) -> None:
        self._link, self._keys, self._sets = link, Keys(prefix), sets

    def page(self, wanted: Wanted, cursor: str = "", limit: int = 50, within_seconds: float = 1.0) -> DeadPage:
        """Return up to ``limit`` letters.

        Args:
            wanted: Which.
            cursor: That of the page before; empty: from the latest on.
            limit: At most so many.
            within_seconds: How long to look for those that fit; then the page ends, and its cursor goes on from there.

        Raises:
            ValueError: The cursor is none.
            NotSent, OutcomeUnknown, ResponseError: As ``Link.command``.
        """
        deadline, found = monotonic() + within_seconds, list[Listed]()
        places = self._places(wanted, _place_of(cursor))
        last: PagePosition | None = None
        looked_at = 0
        while some := list(islice(places, limit + 1)):
            for place, letter in zip(some, self._read(some), strict=True):
                if len(found) == limit:
                    return DeadPage(found, json.dumps(last))
                last = place
                if letter is not None and wanted.fits(letter):
                    found.append(letter)
            if monotonic() > deadline and len(some) > limit:
                return DeadPage(found, json.dumps(last))
            looked_at += len(some)
            if looked_at >= AFRESH:
                places, looked_at = self._places(wanted, last), 0
        return DeadPage(found, "")

    def _places(self, wanted: Wanted, after: PagePosition | None) -> Iterator[PagePosition]:
        sets = [
            (queue, reason)
            for queue, reason in self._sets
            if wanted.queue in ("", queue) and wanted.reason in ("", reason)
        ]
        each = (self._places_in(queue, reason, after, wanted.until) for queue, reason in sets)
        return merge(*each, key=lambda place: (-place.score, place.queue, place.reason))

    def _places_in(self, queue: str, reason: str, after: PagePosition | None, until: float) -> Iterator[PagePosition]:
        """Yield the places in one set behind ``after``, as ``merge`` orders them; equal ones as Redis does."""
        highest = _score_text(until * 1_000) if until else "+inf"
        if after is not None and (not until or after.score <= until * 1_000):
            is_behind = (queue, reason) >= (after.queue, after.reason)
            highest = ("" if is_behind else "(") + _score_text(after.score)
        key, start = self._keys("dead", queue, reason), 0
        while True:
            limits = ("WITHSCORES", "LIMIT", start, CHUNK)
            answer = self._link.command("ZREVRANGEBYSCORE", key, highest, "-inf", *limits)
            for number, score in zip(answer[::2], answer[1::2], strict=True):
                place = PagePosition(float(score), queue, reason, int(number))
                if after is None or not _is_seen(place, number, after):
                    yield place
            if len(answer) < 2 * CHUNK:
                return
            start += CHUNK

    def _read(self, places: Sequence[PagePosition]) -> list[Listed | None]:
        """Return what is known of the letters at ``places``; ``None`` for one that is gone by now."""
        answers = all_answered(self._link.pipeline([
            (command, self._keys(kind, place.queue), place.number)
            for place in places
            for command, kind in (("HGET", "dead_about"), ("HSTRLEN", "dead_raw"))
        ]))  # fmt: skip
        abouts, sizes = answers[::2], answers[1::2]
        return [
            self._listed(place, json.loads(about.decode(errors="replace")), size) if about is not None else None
            for place, about, size in zip(places, abouts, sizes, strict=True)
        ]

    def _listed(self, place: PagePosition, about: dict[str, Any], message_bytes: int) -> Listed:
        identity, task = about["id"], about["task"]
        if not task and message_bytes <= NAMED_BYTES_MOST:
            raw = self._link.command("HGET", self._keys("dead_raw", place.queue), place.number)
            identity, task = named_in_json(unseal(raw or b"").body)
        return Listed(
            queue=place.queue, number=place.number, reason=about["reason"], id=identity, task=task,
            deliveries=int(about["deliveries"]), crashes=int(about["crashes"]), buried_at=about["buried_at"] / 1_000,
            node=about["node"], error=about["error"], message_bytes=message_bytes,
        )  # fmt: skip


def _score_text(score: float) -> str:
    return format(score, ".17g")


def _is_seen(place: PagePosition, number: bytes, after: PagePosition) -> bool:
    """Say whether ``place``, in a set from ``after.score`` on, is ``after`` or one before it."""
    if (place.score, place.queue, place.reason) != after[:3]:
        return place.score > after.score
    return number >= str(after.number).encode()  # Redis orders equal ones by their bytes, here from the end


def _place_of(cursor: str) -> PagePosition | None:
    if not cursor:
        return None
    try:
        score, queue, reason, number = json.loads(cursor)
        return PagePosition(float(score), str(queue), str(reason), int(number))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{cursor[:100]!r} is no place among dead letters; begin with the first page") from error
