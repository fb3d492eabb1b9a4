"""Pages of dead letters, latest first, at a cost that does not grow with their number.

Each queue and reason has a sorted set; a page is a slice of all of them merged, from a position on.
It reads only the summaries written at burial, not the messages.
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
"""Number of positions after which to query by score again: Redis walks an offset one by one."""
NAMED_BYTES_MOST = 1 << 16
"""Maximum size of a message to search for the task's name if its summary has none."""


class PagePosition(NamedTuple):
    """Position of a letter among all: by time, queue, reason and number."""

    score: float
    """Time of burial in ms, as in its sorted set."""
    queue: str
    reason: str
    number: int


class Listed(NamedTuple):
    """Summary of a dead letter for lists."""

    queue: str
    number: int
    reason: str
    id: str
    """Id of the task; empty if the message cannot be read."""
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
        """Name of the letter in commands."""
        return f"{self.queue}/{self.number}"


class DeadPage(NamedTuple):
    """A page of dead letters, latest first."""

    letters: list[Listed]
    cursor: str
    """Start of the next page; empty: this is the last page."""


class Wanted(NamedTuple):
    """Filter for letters; an empty field matches any."""

    queue: str = ""
    reason: str = ""
    text: str = ""
    """Text in the id, the task type or the error, ignoring case."""
    until: float = 0.0
    """Latest time of burial, Unix seconds; 0: no bound."""

    def fits(self, letter: Listed) -> bool:
        """Return whether ``letter`` contains the text."""
        text = self.text.casefold()
        return not text or any(text in part.casefold() for part in (letter.task, letter.id, letter.error))


class DeadPages:
    """Reads pages of dead letters.

    Args:
        link: Connection to the broker.
        prefix: Prefix of all keys.
        sets: Queue and reason of each set with letters, see ``DeadLetters.count``.
    """

    def __init__(self, link: Link, prefix: str, sets: Sequence[tuple[str, str]]) -> None:
        self._link, self._keys, self._sets = link, Keys(prefix), sets

    def page(self, wanted: Wanted, cursor: str = "", limit: int = 50, within_seconds: float = 1.0) -> DeadPage:
        """Return a page of letters.

        Args:
            wanted: Filter.
            cursor: Cursor of the previous page; empty: begin with the latest letter.
            limit: Maximum number of letters.
            within_seconds: Time to search for matches; then the page ends, and its cursor continues from there.

        Raises:
            ValueError: The cursor is invalid.
            NotSent, OutcomeUnknown, ResponseError: As for ``Link.command``.
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
        """Yield the positions in one set after ``after`` in the order of ``merge``; ties in the order of Redis."""
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
        """Return the summaries of the letters at ``places``; ``None`` for one that is gone."""
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
    """Return whether ``place``, in a set from ``after.score`` on, is ``after`` or comes before it."""
    if (place.score, place.queue, place.reason) != after[:3]:
        return place.score > after.score
    return number >= str(after.number).encode()  # Redis orders ties by their bytes, here in reverse


def _place_of(cursor: str) -> PagePosition | None:
    if not cursor:
        return None
    try:
        score, queue, reason, number = json.loads(cursor)
        return PagePosition(float(score), str(queue), str(reason), int(number))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{cursor[:100]!r} is not a valid cursor; start with the first page") from error
