"""Takes over messages that a stock Celery system left in Redis; imports neither kombu nor Celery.

A worker on kombu's own Redis transport keeps the messages it has taken in the hash ``unacked``
until it has run them. When it is gone they stay there until another stock worker finds that the
visibility timeout has passed. ``adopt`` moves them back to the front of their ready lists.

Messages that wait in kombu's own lists need no command: nodes adopt them, at the priority that they
have. Two kinds of messages with priorities do. Celery's guide recommends a colon as ``sep``, which gives lists
names that no node consumes. And stock Celery takes the *lowest* number first, taskapp the highest: to
keep the old order, messages can be merged into priority 0, in the order of stock Celery.

Each message moves in one atomic step, so an interrupted run can simply be repeated: nothing is
lost or duplicated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import ResponseError

from taskapp.errors import TaskappError
from taskapp.migrate.stock_celery import (
    GUIDE_SEPARATOR,
    UNACKED,
    UNACKED_INDEX,
    Binding,
    HeldMessage,
    at_lowest_priority,
    bindings,
    bound_queues,
    read_held,
    read_waiting,
)
from taskapp.queues import LOWEST_PRIORITY, PRIORITIES
from taskapp.redis.keys import Keys

ABOVE_LOWEST = tuple(priority for priority in PRIORITIES if priority != LOWEST_PRIORITY)
BATCH = 200
"""Messages in one step; with 1 MiB per message, client and server can still hold them."""
EXAMPLES = 5
"""Number of tags to show per reason."""


class StockWorkersAlive(TaskappError):
    """Stock workers may still be running the messages to adopt."""

    def __init__(self, signs: Iterable[str]) -> None:
        self.signs = list(signs)
        super().__init__(
            f"stock workers still seem to be alive: {'; '.join(self.signs)}; stop them first, "
            "or pass --force if none of them runs tasks of this broker (tasks that they run would run twice)"
        )


class Adopted(NamedTuple):
    """A message that was moved out of ``unacked``."""

    queue: str
    priority: int
    task: str
    id: str


@dataclass
class Left:
    """Messages that stay where they are for the same reason."""

    remedy: str
    count: int = 0
    tags: list[str] = field(default_factory=list)
    """Delivery tags of the first few."""


@dataclass
class Adoption:
    """Messages that were moved, or would be in a dry run, and messages that stay where they are."""

    adopted: list[Adopted] = field(default_factory=list)
    moved: Counter[str] = field(default_factory=Counter)
    """Number of waiting messages by queue that were merged, or moved from lists that no node consumes."""
    waiting: dict[str, dict[int, int]] = field(default_factory=dict)
    """Number of stock messages above priority 0, by queue and priority; Celery takes them last, taskapp first."""
    left: dict[str, Left] = field(default_factory=dict)
    """Messages that stay in ``unacked``, by reason."""

    def leave(self, tag: bytes, reason: str, remedy: str) -> None:
        """Record a message that stays."""
        left = self.left.setdefault(reason, Left(remedy))
        left.count += 1
        if len(left.tags) < EXAMPLES:
            left.tags.append(tag.decode(errors="replace"))


@dataclass(frozen=True)
class Destination:
    """Destination and options of an adoption."""

    client: Redis
    """Client of the broker's database; returns bytes."""
    key_prefix: str
    """``TASKAPP_KEY_PREFIX``, kombu's ``global_keyprefix``."""
    queues: Sequence[str]
    """The declared queues."""
    dry_run: bool = False
    """Whether to report what would happen without changing anything."""
    merge_priorities: bool = False
    """Whether messages with priorities 1 to 9 are put behind those with 0, at priority 0."""

    creates_queues: bool = False
    """Whether the app also takes queues that it does not declare: Celery's ``task_create_missing_queues``."""
    declared_by: str = "TASKAPP_QUEUES"
    """Setting that declares the queues."""

    def lacks(self, queue: str) -> str:
        """Return why messages of ``queue`` cannot be moved; empty if they can."""
        is_known = self.creates_queues or queue in self.queues
        return "" if is_known else f"queue {queue!r} is not in {self.declared_by}"

    def remedy(self, queue: str) -> str:
        """Return what makes the app take ``queue``."""
        if self.declared_by != "TASKAPP_QUEUES":
            return f"add it to {self.declared_by} and run this again"
        return f"set TASKAPP_QUEUES={','.join((*self.queues, queue))} and run this again"

    def all_queues(self) -> list[str]:
        """Return the declared queues; if the app takes others, also those that stock Celery has used."""
        used = bound_queues(self.client, self.key_prefix) if self.creates_queues else ()
        return list(dict.fromkeys((*self.queues, *used)))

    def ready(self, queue: str, priority: int) -> str:
        """Return the key of the ready list to move to."""
        return Keys(self.key_prefix).ready(queue, self.level(priority))

    def level(self, priority: int) -> int:
        """Return the priority after the move."""
        return LOWEST_PRIORITY if self.merge_priorities else priority

    def as_moved(self, message: bytes) -> bytes:
        """Return kombu's ``message`` in the form it has after the move."""
        return at_lowest_priority(message) if self.merge_priorities else message

    def script(self, operation: str) -> Script:
        """Return a script that takes its keys as ``KEYS``."""
        source = (Path(__file__).parent / "lua" / f"{operation}.lua").read_text()
        return self.client.register_script(source)


def adopt(place: Destination) -> Adoption:
    """Move messages that workers on kombu's own transport held, or that wait in lists no node consumes.

    A held message goes to the front of its queue at its priority; the one that was delivered first
    is taken first again. Messages that cannot be read, or belong to none of the queues, stay unchanged
    in ``unacked``. Call it while no stock worker runs.

    Raises:
        RedisError: The server went away or refused; messages moved by then are moved completely.
    """
    report = Adoption()
    _WaitingMessages(place, report).move()
    _HeldMessages(place, report).adopt()
    return report


class _Move(NamedTuple):
    tag: bytes
    message: bytes
    """Empty: only the index contains the tag."""
    to: list[Adopted]


class _HeldMessages:
    """One walk over ``unacked``."""

    def __init__(self, place: Destination, report: Adoption) -> None:
        self._place, self._client, self._report = place, place.client, report
        self._unacked, self._index = place.key_prefix + UNACKED, place.key_prefix + UNACKED_INDEX
        self._script = place.script("adopt")
        self._bindings: dict[str, list[Binding]] = {}

    def adopt(self) -> None:
        """Adopt every message that can be adopted."""
        passed_over = 0
        # Newest first, because each one goes in front of the previous ones.
        while tags := self._newest(passed_over):
            passed_over += self._adopt(tags)
        for tags in self._without_index():
            self._adopt(tags)

    def _newest(self, passed_over: int) -> list[bytes]:
        return cast("list[bytes]", self._client.zrange(self._index, passed_over, passed_over + BATCH - 1, desc=True))

    def _without_index(self) -> Iterator[list[bytes]]:
        """Yield tags of held messages that are missing from the index, each once."""
        seen: set[bytes] = set()
        cursor = -1
        while cursor:
            cursor, found = self._client.hscan(self._unacked, max(cursor, 0), count=BATCH)
            page = [tag for tag in cast("dict[bytes, bytes]", found) if tag not in seen]
            scores = self._client.zmscore(self._index, cast("list[str]", page)) if page else []
            if tags := [tag for tag, score in zip(page, scores, strict=True) if score is None]:
                seen.update(tags)
                yield tags

    def _adopt(self, tags: list[bytes]) -> int:
        """Adopt the messages of ``tags`` and return how many tags stay."""
        values = cast("list[bytes | None]", self._client.hmget(self._unacked, cast("list[str]", tags)))
        planned = [self._plan(tag, value) for tag, value in zip(tags, values, strict=True)]
        moves = [move for move in planned if move is not None]
        if self._place.dry_run:
            self._report.adopted += [message for move in moves for message in move.to]
            return len(tags)
        return len(tags) - len(moves) + self._carry_out(moves)

    def _plan(self, tag: bytes, value: bytes | None) -> _Move | None:
        """Return the move for a tag; ``None`` if its message stays."""
        if value is None:
            return _Move(tag, b"", [])
        try:
            held = read_held(value)
        except ValueError:
            remedy = f"see `HGET {self._unacked} <tag>`; `HDEL` removes it"
            self._report.leave(tag, "cannot be read as a kombu message", remedy)
            return None
        named, place = self._queues_of(held), self._place
        for queue in named:
            if reason := place.lacks(queue):
                self._report.leave(tag, reason, place.remedy(queue))
                return None
        return _Move(tag, self._place.as_moved(held.to_json()), [self._named(held, queue) for queue in named])

    def _named(self, held: HeldMessage, queue: str) -> Adopted:
        headers = held.message["headers"]
        task, identity = str(headers.get("task", "")), str(headers.get("id", ""))
        return Adopted(queue, self._place.level(held.priority), task, identity)

    def _queues_of(self, held: HeldMessage) -> list[str]:
        """Return all queues bound to this exchange and key, as kombu does when it restores messages.

        ``unacked`` does not record from which of them a copy came.
        """
        if not held.exchange:
            return [held.routing_key]
        if held.exchange not in self._bindings:
            self._bindings[held.exchange] = bindings(self._client, self._place.key_prefix, held.exchange)
        bound = {each.queue for each in self._bindings[held.exchange] if each.takes(held.routing_key)}
        return sorted(bound) or [held.routing_key]

    def _carry_out(self, moves: list[_Move]) -> int:
        """Carry out ``moves``; return how many could not be carried out."""
        if not moves:
            return 0
        lists = [[self._place.ready(each.queue, each.priority) for each in move.to] for move in moves]
        position = {key: 3 + at for at, key in enumerate(dict.fromkeys(key for keys in lists for key in keys))}
        arguments: list[bytes | str] = []
        for move, keys in zip(moves, lists, strict=True):
            arguments += [move.tag, move.message, " ".join(str(position[key]) for key in keys)]
        outcomes = cast("list[bytes]", self._script(keys=[self._unacked, self._index, *position], args=arguments))
        for move, keys, outcome in zip(moves, lists, outcomes, strict=True):
            if outcome == b"adopted":
                self._report.adopted += move.to
            elif outcome == b"wrong type":
                self._report.leave(move.tag, f"{keys[0]!r} is not a list", "rename that key and run this again")
        return outcomes.count(b"wrong type")


class _WaitingMessages:
    """Messages that stock Celery queued above priority 0."""

    def __init__(self, place: Destination, report: Adoption) -> None:
        self._place, self._client, self._report = place, place.client, report
        self._script = place.script("merge")
        self._keys = Keys(place.key_prefix)
        self._queues: list[str] = []

    def move(self) -> None:
        """Move messages from lists that no node consumes; with ``merge_priorities`` all, in stock Celery's order."""
        self._queues = self._place.all_queues()
        for queue in self._queues:
            if self._place.merge_priorities:
                # Otherwise a node would adopt them behind the others.
                self._move(self._keys.kombu(queue), self._keys.ready(queue))
            for priority in ABOVE_LOWEST:
                self._move_level(queue, priority)

    def _move_level(self, queue: str, priority: int) -> None:
        target, merges = self._place.ready(queue, priority), self._place.merge_priorities
        # First those that a node has adopted.
        lists = (self._keys.ready(queue, priority), self._keys.kombu(queue, priority))
        there = sum(self._move(each, target) if merges else self._length(each) for each in lists)
        other_name = f"{queue}{GUIDE_SEPARATOR}{priority}"
        renamed = 0
        if other_name not in self._queues:
            renamed = self._move(self._place.key_prefix + other_name, target)
        if merges:
            self._report.moved += Counter({queue: there + renamed})  # += drops zeros
            return
        self._report.moved += Counter({queue: renamed})
        if there + renamed:
            self._report.waiting.setdefault(queue, {})[priority] = there + renamed

    def _length(self, key: str) -> int:
        """Return the length of a list if its next message is kombu's, else 0."""
        is_stock = any(read_waiting(entry) is not None for entry in self._next(key, 0, 1))
        return self._client.llen(key) if is_stock else 0

    def _move(self, source: str, target: str) -> int:
        """Move kombu's messages of one list behind those of another; return the number moved."""
        total = stayed = 0
        while entries := self._next(source, stayed, BATCH):
            stock = [entry for entry in entries if read_waiting(entry) is not None]
            if self._place.dry_run:
                moved = 0
                total += len(stock)
            else:
                pairs = [part for entry in stock for part in (entry, self._place.as_moved(entry))]
                moved = cast("int", self._script(keys=[source, target], args=pairs)) if stock else 0
                total += moved
            stayed += len(entries) - moved
        return total

    def _next(self, key: str, passed_over: int, count: int) -> list[bytes]:
        """Return up to ``count`` entries of a list in the order they are taken; none if the key is not a list."""
        try:
            return cast("list[bytes]", self._client.lrange(key, -count - passed_over, -1 - passed_over))[::-1]
        except ResponseError:
            return []
