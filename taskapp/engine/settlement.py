"""What is carried out together when a claim ends: results, follow-up messages, parts of chords, events.

A run collects them in its settlement; the script ``settle`` carries all of it out in one step, if the
claim still holds, or nothing of it.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, Self

from taskapp.engine.counters import CountedRun
from taskapp.engine.producer import Message, publications
from taskapp.errors import TooManyFollowUps

FOLLOW_UPS_MOST = 100_000
"""Messages in one settlement; Redis takes a million arguments in one call."""

SCHEDULE_HEADER = "taskapp_schedule"
"""In the headers of a tick: which schedule it belongs to."""

DUE_HEADER = "taskapp_due_at"
"""In the headers of a tick: when it was due, Unix seconds."""

COPY_HEADER = "taskapp_copy"
"""In the headers of a tick on a broker that is not the engine's: which publication of it this is."""


class Result(NamedTuple):
    """A result to store."""

    key: str | bytes
    value: str | bytes
    expires_seconds: int
    """0 for ever."""


class Chord(NamedTuple):
    """A chord that begins."""

    id: str
    size: int
    """How many parts it waits for; 0: not known yet."""
    about: bytes
    """What ``finish`` needs to know, in the words of who begins it."""
    finish: bytes
    """The message that the last part puts in front of its queue; empty: none, who counts the last part is told."""
    expires_seconds: int
    """0 for ever."""


class ChordPart(NamedTuple):
    """The outcome of one task in a chord's header."""

    chord: str
    slot: str
    """Which part it is; a repeat of it counts once."""
    is_success: int
    """1 or 0. A success that stands stays; anything else gives way to a repeat."""
    value: bytes
    expires_seconds: int
    """0 for ever."""


class Event(NamedTuple):
    """News of a follow-up, published when it is queued."""

    channel: str
    body: bytes


class TickName(NamedTuple):
    """Which tick of which schedule."""

    schedule: str
    id: str
    """Of its task."""
    due_ms: int


def tick_of(headers: Mapping[str, Any]) -> TickName | None:
    """Return the tick that the headers of a task name; ``None``: none, or nothing that can be one.

    Anybody can write such headers. Whether the schedule has sent that tick is known to its server, which looks.
    """
    schedule, identity, due_at = headers.get(SCHEDULE_HEADER), headers.get("id"), headers.get(DUE_HEADER)
    if not isinstance(schedule, str) or not isinstance(identity, str):
        return None
    try:
        return TickName(schedule.encode().decode(), identity.encode().decode(), round(due_at * 1_000))  # type: ignore[operator]
    except (TypeError, ValueError, OverflowError):
        return None


class EndOfTick(NamedTuple):
    """What became of the run of a schedule."""

    schedule: str
    id: str
    due_ms: int
    state: str
    """``SUCCESS``, ``FAILURE``, ``REVOKED``, ``REJECTED``, ``IGNORED``; ``STARTED`` of one acknowledged early."""
    took_ms: int


class EndOfTask(NamedTuple):
    """What is told of a task that has ended for good."""

    most: int
    """How many of them wait at most to be written down; the oldest fall off."""
    packed: bytes
    """See ``finished.py``."""


class Settlement:
    """All that one run leaves to its end. Can be pickled: a child process returns it to its parent."""

    __slots__ = (
        "chords",
        "end",
        "events",
        "external_writes",
        "finished",
        "kept",
        "messages",
        "parts",
        "postings",
        "results",
        "run",
        "tick",
    )

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.messages: list[Message] = []
        self.postings: list[Any] = []
        """Follow-ups for a broker that is not the engine's, in the words of who sends them; never pickled."""
        self.parts: list[ChordPart] = []
        self.chords: list[Chord] = []
        self.finished: list[str] = []
        """Chords whose parts were read and are not needed any more."""
        self.events: list[Event] = []
        self.external_writes: list[Any] = []
        """What is stored before all of this, in this order, by the result backend and in its own words:
        on a server of its own, or too large for one step."""
        self.tick: EndOfTick | None = None
        self.run: CountedRun | None = None
        self.end: EndOfTask | None = None
        self.kept = (0, 0)
        """So many messages and postings stay when the rest is dropped."""

    def add(self, message: Message) -> None:
        """Collect a follow-up.

        Raises:
            TooManyFollowUps: There are ``FOLLOW_UPS_MOST`` already.
        """
        if len(self.messages) >= FOLLOW_UPS_MOST:
            raise TooManyFollowUps(FOLLOW_UPS_MOST)
        self.messages.append(message)

    def post(self, posting: Any) -> None:
        """Collect a follow-up for a broker that is not the engine's."""
        self.postings.append(posting)

    def keep(self) -> None:
        """Let what was collected so far be sent even if the run fails yet: a retry, a replacement."""
        self.kept = len(self.messages), len(self.postings)

    def keep_results_only(self) -> None:
        """Forget all but the results."""
        for collected in (self.messages, self.postings, self.parts, self.chords, self.finished, self.events):
            collected.clear()

    def drop(self) -> None:
        """Forget what was collected for a success that is none, except what is kept."""
        del self.messages[self.kept[0] :], self.postings[self.kept[1] :]
        for collected in (self.results, self.parts, self.chords, self.finished, self.events, self.external_writes):
            collected.clear()

    def steps(self) -> list[Any]:
        """Return what the script ``settle`` does for one claim, see there; but for what is counted of its run."""
        steps: list[Any] = []
        for chord in self.chords:
            steps += ("O", *chord)
        for part in self.parts:
            steps += ("C", *part)
        for chord_id in self.finished:
            steps += ("F", chord_id)
        for message in self.messages:
            steps += ("M", *message[:5])
        for publication in publications(self.messages):
            steps += ("E", *publication)
        for event in self.events:
            steps += ("E", *event)
        if self.tick is not None:
            steps += ("S", *self.tick)
        # Last: nobody shall read or hear of a success of which something else was refused.
        for result in self.results:
            steps += ("R", *result)
        if self.end is not None:
            steps += ("H", *self.end)
        return steps


_settlement: ContextVar[Settlement | None] = ContextVar("taskapp_settlement", default=None)
_collecting: ContextVar[Settlement | None] = ContextVar("taskapp_collecting", default=None)
"""A variable of its own: what a task's body started in the background goes on sending for itself."""


def current() -> Settlement | None:
    """Return the settlement that collects what is sent here and now; ``None``: it is to be sent at once."""
    return _collecting.get()


def is_only_awaited_by_its_slot() -> bool:
    """Return whether what is sent here follows a run, and nothing but the run's slot waits for it."""
    if current() is None:
        return False
    try:
        get_running_loop()
    except RuntimeError:
        return True
    return False


class settling:  # noqa: N801 - used like contextlib's functions, at a third of their cost
    """Makes ``settlement`` that of the run inside; ``None``: a run that has none, whatever is around it."""

    __slots__ = ("_settlement", "_token")
    _token: Token[Settlement | None]

    def __init__(self, settlement: Settlement | None) -> None:
        self._settlement = settlement

    def __enter__(self) -> Self:
        self._token = _settlement.set(self._settlement)
        return self

    def __exit__(self, *_: object) -> None:
        _settlement.reset(self._token)


class collecting:  # noqa: N801 - the same
    """Lets the run's settlement collect what is sent inside; does nothing where no run has one.

    Args:
        drop: First forget what was collected, see ``Settlement.drop``.
        keep: At the end, keep what was collected, see ``Settlement.keep``.
    """

    __slots__ = ("_drop", "_keep", "_token")
    _token: Token[Settlement | None]

    def __init__(self, *, drop: bool = False, keep: bool = False) -> None:
        self._drop, self._keep = drop, keep

    def __enter__(self) -> Self:
        settlement = _settlement.get()
        if self._drop and settlement is not None:
            settlement.drop()
        self._token = _collecting.set(settlement)
        return self

    def __exit__(self, *_: object) -> None:
        if self._keep and (settlement := _settlement.get()) is not None:
            settlement.keep()
        _collecting.reset(self._token)
