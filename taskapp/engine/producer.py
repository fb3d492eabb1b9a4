"""Pushes messages. Each is known to be queued, known not to be queued, or reported as unknown."""

from __future__ import annotations

import json
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from time import monotonic, sleep
from typing import Any, Literal, NamedTuple, Protocol

from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from taskapp.engine.clock import Clock, Reading, steady_ms
from taskapp.engine.options import Options
from taskapp.errors import BrokerFull, NotQueued, SubmitOutcomeUnknown
from taskapp.errors.publishing import QueueFull
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link, NotSent, OutcomeUnknown

PUSHED_AT_ONCE = 1_000
PUSHED_BYTES_AT_ONCE = 1 << 20
"""Bytes after which a step is full; Redis carries it out within a few milliseconds."""
PUBLISHED_AT_ONCE = 100
"""Maximum number of events in one publication; a listener handles it in one go."""
REMEMBERED_DOUBTS = 10_000
LEAST_SECONDS = 0.05
"""With less time left, no attempt is made."""


class Announcer(Protocol):
    """Turns the events of messages into publications."""

    def publication(self, messages: Sequence[Message]) -> tuple[str, bytes]:
        """Return the channel and the payload to publish once ``messages`` are queued; each has an event."""


class Taken(NamedTuple):
    """A message whose unique key another task has."""

    id: str
    """Id of the message, which was not queued."""
    outcome: Literal["existing", "refused", "replaced"]
    """``replaced``: the other task, which has not begun, got its arguments."""
    other: str
    """Id of the other task."""


class Message(NamedTuple):
    """A message to push."""

    queue: str
    priority: int
    due_ms: int
    """Engine time at which it becomes ready; 0: now."""
    id: str
    blob: bytes
    event: bytes = b""
    """Event to publish once the message is queued."""
    announcer: Announcer | None = None
    """Publishes ``event``."""
    is_relayed: bool = False
    """Whether it comes from an outbox, whose relay may push it again: it is queued once within a day."""
    is_limited: bool = False
    """Whether its blob has limits, see ``seal``."""
    on_taken: Callable[[Taken], Any] | None = None
    """Called, on any thread, if its unique key is taken; never for a follow-up of a run. It must not raise."""


def publications(messages: Sequence[Message]) -> list[tuple[str, bytes]]:
    """Return channels and payloads to publish once ``messages`` are queued."""
    by_announcer: dict[Announcer, list[Message]] = {}
    for message in messages:
        if message.announcer is not None:
            by_announcer.setdefault(message.announcer, []).append(message)
    return [
        announcer.publication(announced[start : start + PUBLISHED_AT_ONCE])
        for announcer, announced in by_announcer.items()
        for start in range(0, len(announced), PUBLISHED_AT_ONCE)
    ]


def steps_of(messages: Sequence[Message]) -> Iterator[int]:
    """Yield the end index of each step of a push: after 1,000 messages, or as soon as it has 1 MiB."""
    start, size = 0, 0
    for position, message in enumerate(messages, 1):
        size += len(message.blob)
        if position - start >= PUSHED_AT_ONCE or size >= PUSHED_BYTES_AT_ONCE:
            yield position
            start, size = position, 0
    if start < len(messages):
        yield len(messages)


def _arguments(messages: Sequence[Message]) -> list[Any]:
    """Return the arguments of the script ``push``; consecutive messages for the same list share one prefix."""
    published = publications(messages)
    arguments: list[Any] = [len(published), *chain.from_iterable(published)]
    where: tuple[str, int] | None = None
    counted_at = 0
    for queue, priority, due_ms, message_id, blob, _, _, is_relayed, is_limited, _ in messages:
        if due_ms or is_relayed or is_limited:
            arguments += (queue, priority, -is_relayed - 2 * is_limited, due_ms, message_id, blob)
            where = None
        elif where == (queue, priority):
            arguments[counted_at] += 1
            arguments.append(blob)
        else:
            where, counted_at = (queue, priority), len(arguments) + 2
            arguments += (queue, priority, 1, blob)
    return arguments


def _taken(answer: Sequence[Any], batch: Sequence[Message]) -> list[Taken]:
    """Return what ``answer`` says of messages of ``batch``, and tell those who want to know."""
    texts: list[Any] = [part.decode() if isinstance(part, bytes) else part for part in answer]
    found = list(map(Taken, texts[::3], texts[1::3], texts[2::3]))
    listeners = {message.id: message.on_taken for message in batch if message.on_taken is not None}
    for each in found:
        if (tell := listeners.get(each.id)) is not None:
            tell(each)
    return found


FULL = "QUEUEFULL "
"""How the script ``push`` begins its refusal."""
ROOM_SECONDS = 0.05
"""How often to try again to push to a full queue."""


def has_time(deadline: float) -> bool:
    """Return whether there is time to push again before ``deadline``."""
    return monotonic() + LEAST_SECONDS < deadline


def refused_by(full: QueueFull, messages: Sequence[Message]) -> list[Message]:
    """Return those of ``messages`` that ``full`` names."""
    refused = set(full.task_ids)
    return [message for message in messages if message.id in refused]


def _full(text: str, refused: Sequence[Message]) -> QueueFull:
    about, ids = json.loads(text.removeprefix(FULL)), [message.id for message in refused]
    seconds = max(float(about["seconds"]), ROOM_SECONDS)
    return QueueFull(ids, about["queue"], int(about["limit"]), int(about["waiting"]), seconds)


class _Push(NamedTuple):
    """Identifies a push, to find out later whether it was carried out."""

    producer: str
    number: int


class Producer:
    """Pushes for one process, over one persistent connection. Threads take turns.

    Every push records its number on the server, in the same step. After a connection breaks, the
    number shows whether the push was carried out; if it was not, the producer's name is closed, so
    that a push still in transit does nothing. So a push is repeated exactly when it must be.
    """

    def __init__(self, link: Link, options: Options, deadline_seconds: float) -> None:
        self.link = link
        """The connection, for other commands."""
        self._prefix = options.prefix
        self._queue_limits = json.dumps(dict(options.queue_limits)) if options.queue_limits else ""
        self.waits_for_room = options.waits_for_room
        self._lease_ms = options.lease_ms
        self._deadline_seconds = deadline_seconds
        self._lock = threading.Lock()
        self._name = uuid.uuid4().hex
        self._number = 0
        self._doubts: OrderedDict[str, _Push] = OrderedDict()
        self._known_queues: set[str] = set()
        self.clock = Clock()

    def push(self, messages: Sequence[Message], deadline: float | None = None) -> list[Taken]:
        """Queue ``messages``; if a queue is full, wait for room with ``Options.waits_for_room``. See ``push_now``."""
        deadline = self._latest(deadline)
        while True:
            try:
                return self.push_now(messages, deadline)
            except QueueFull as full:
                if not self.waits_for_room:
                    raise
                messages = refused_by(full, messages)
                sleep(ROOM_SECONDS)
                if not has_time(deadline):
                    raise

    def _latest(self, deadline: float | None) -> float:
        latest = monotonic() + self._deadline_seconds
        return latest if deadline is None else min(deadline, latest)

    def push_now(self, messages: Sequence[Message], deadline: float | None = None) -> list[Taken]:
        """Queue ``messages`` in steps of up to 1,000 messages or 1 MiB; each step is carried out fully or not at all.

        Return those that were not queued because another task has their unique key; each ``on_taken`` is called first.

        Args:
            messages: The messages to queue.
            deadline: Latest time to give up, by ``time.monotonic``.

        Raises:
            NotQueued: The broker could not be reached before the deadline; nothing was queued.
            SubmitOutcomeUnknown: It did not answer before the deadline. Pushing the same ids again
                from this process is safe.
            BrokerFull: Redis has no memory left; nothing was queued.
            QueueFull: A queue has no room for the messages of a step that go there; that step and later ones were
                not queued.
        """
        deadline = self._latest(deadline)
        if not self._lock.acquire(timeout=max(deadline - monotonic(), 0.0)):
            raise NotQueued([message.id for message in messages], self._deadline_seconds, "it does not answer")
        try:
            # Waiting for the lock counts against the deadline.
            self.link.patience_seconds = left_seconds = deadline - monotonic()
            if left_seconds < LEAST_SECONDS:
                raise NotQueued([message.id for message in messages], self._deadline_seconds, "it does not answer")
            queued = self._queued_already(messages, deadline)
            wanted = [message for message in messages if message.id not in queued] if queued else messages
            start, taken = 0, []
            for end in steps_of(wanted):
                if answer := self._push(wanted[start:end], wanted[start:], deadline):
                    taken += _taken(answer, wanted[start:end])
                start = end
            for message in messages:  # as a loop, because there is usually one
                if message.queue not in self._known_queues:
                    self.note_queues({each.queue for each in messages})
                    break
            # Not earlier: a caller that fails here and tries again needs the doubts recorded so far.
            if self._doubts:
                for message in messages:
                    self._doubts.pop(message.id, None)
            return taken
        finally:
            self._lock.release()

    def note_queues(self, queues: Iterable[str]) -> None:
        """Record that ``queues`` exist, for those who watch them; whether it worked makes no difference here."""
        new = sorted(set(queues) - self._known_queues)
        if new:
            with suppress(RedisError):
                self.link.command("SADD", Keys(self._prefix)("queues"), *new)
                self._known_queues.update(new)

    def known_clock(self) -> Clock:
        """Return the clock; ask the server for the time first if it is not known yet."""
        if not self.clock.predicted_ms():
            with suppress(RedisError):
                sent_ms = steady_ms()
                self._note_time(self.link.run("push", self._prefix, 0, "", 0), sent_ms)
        return self.clock

    def _push(self, batch: Sequence[Message], rest: Sequence[Message], deadline: float) -> Sequence[Any]:
        """Push one step; return the parts of its answer about unique keys that are taken, three for each message."""
        args = (self._queue_limits, *_arguments(batch))
        while True:
            self._number += 1
            push = _Push(self._name, self._number)
            sent_ms = steady_ms()
            try:
                answer = self.link.run("push", self._prefix, self.clock.predicted_ms(), *push, *args)
            except NotSent as error:
                if not self._may_try_again(deadline):
                    ids = [message.id for message in rest]
                    raise NotQueued(ids, self._deadline_seconds, error) from error
            except OutcomeUnknown as error:
                if self._was_carried_out(push, batch, rest, deadline, error):
                    return self._lost_answer(push) if any(message.is_limited for message in batch) else ()
            except ResponseError as error:
                if (text := str(error)).startswith(FULL):
                    raise _full(text, rest) from None
                # Redis 6.2 reports it inside the message of a script's error.
                if isinstance(error, OutOfMemoryError) or "OOM" in str(error):
                    raise BrokerFull([message.id for message in rest], error) from error
                raise NotQueued([message.id for message in rest], self._deadline_seconds, error) from error
            else:
                self._note_time(answer, sent_ms)
                taken: list[Any] = answer[3:]
                return taken

    def _lost_answer(self, push: _Push) -> Sequence[Any]:
        """Return what a push that was carried out has answered about taken keys."""
        with suppress(RedisError):
            if known := self.link.command("GET", Keys(self._prefix)("producer_answer", push.producer)):
                number, *answer = json.loads(known)
                return answer if int(number) == push.number else ()
        return ()

    def _note_time(self, answer: list[Any], sent_ms: float) -> None:
        reading = Reading(*answer[:3])
        corrected_ms = self.clock.observe(reading, sent_ms, steady_ms())
        if corrected_ms is not None:
            with suppress(RedisError):
                self.link.run("correct", self._prefix, 0, reading.offset_ms, corrected_ms, self._lease_ms)

    def _was_carried_out(
        self, push: _Push, batch: Sequence[Message], rest: Sequence[Message], deadline: float, error: Exception
    ) -> bool:
        # A new name: later pushes must not look like proof that the doubtful push was carried out.
        self._name, self._number = uuid.uuid4().hex, 0
        while True:
            try:
                return self._resolve(push)
            except RedisError:
                if not self._may_try_again(deadline):
                    break
        for message in batch:
            self._doubts[message.id] = push
        while len(self._doubts) > REMEMBERED_DOUBTS:
            self._doubts.popitem(last=False)
        unknown = [message.id for message in batch]
        not_queued = [message.id for message in rest[len(batch) :]]
        raise SubmitOutcomeUnknown(unknown, not_queued, self._deadline_seconds, error) from error

    def _resolve(self, push: _Push) -> bool:
        return bool(self.link.run("resolve", self._prefix, 0, *push))

    def _queued_already(self, messages: Sequence[Message], deadline: float) -> set[str]:
        """Return the ids whose earlier push, of unknown outcome, turns out to have been carried out."""
        if not self._doubts:
            return set()
        doubtful = {message.id: push for message in messages if (push := self._doubts.get(message.id))}
        came_through: dict[_Push, bool] = {}
        for push in dict.fromkeys(doubtful.values()):
            while push not in came_through:
                try:
                    came_through[push] = self._resolve(push)
                except RedisError as error:
                    if not self._may_try_again(deadline):
                        unknown = [one for one, push in doubtful.items() if push not in came_through]
                        queued = {one for one, push in doubtful.items() if came_through.get(push)}
                        known = [one.id for one in messages if one.id not in queued and one.id not in unknown]
                        raise SubmitOutcomeUnknown(unknown, known, self._deadline_seconds, error) from error
        return {message_id for message_id, push in doubtful.items() if came_through[push]}

    def _may_try_again(self, deadline: float) -> bool:
        """Wait a moment and return ``True``; return ``False`` if ``deadline`` would pass."""
        left_seconds = deadline - monotonic() - LEAST_SECONDS
        if left_seconds < LEAST_SECONDS:
            return False
        sleep(LEAST_SECONDS)
        self.link.patience_seconds = left_seconds
        return True
