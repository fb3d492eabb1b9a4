"""The settlement of a run: results, follow-up messages, parts of chords and events, carried out together.

A run collects them in its settlement; the script ``settle`` carries out all of it in one step if the
claim still holds, and none of it otherwise.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Mapping
from contextvars import ContextVar, Token
from time import monotonic
from typing import Any, Final, NamedTuple, Self

from taskapp.engine.counters import CountedRun
from taskapp.engine.producer import Message, publications
from taskapp.errors import TooManyFollowUps

FOLLOW_UPS_MOST = 100_000
"""Maximum number of messages in one settlement; Redis accepts a million arguments in one call."""

SCHEDULE_HEADER = "taskapp_schedule"
"""Header of a tick: name of its schedule."""

DUE_HEADER = "taskapp_due_at"
"""Header of a tick: when it was due, Unix seconds."""

COPY_HEADER = "taskapp_copy"
"""Header of a tick on a broker other than Redis: identifies this publication of it."""


# First arguments of the steps that ``settle.lua`` carries out; its header lists what follows each.
STEP_CLAIM: Final = "T"
"""A claim begins, by its tag."""
STEP_LETTER: Final = "U"
"""Instead of a claim: an unreported dead letter, by its name."""
STEP_RESULT: Final = "R"
STEP_CHORD: Final = "O"
STEP_CHORD_PART: Final = "C"
STEP_CHORD_FINISHED: Final = "F"
STEP_MESSAGE: Final = "M"
STEP_EVENT: Final = "E"
STEP_BURY: Final = "D"
STEP_BURY_UNREPORTED: Final = "B"
STEP_TICK: Final = "S"
STEP_RUN: Final = "K"
STEP_PAUSE: Final = "P"
STEP_COUNT_FOR_BUDGET: Final = "N"
STEP_CIRCUIT: Final = "X"
STEP_HISTORY: Final = "H"


class Result(NamedTuple):
    """A result to store."""

    key: str | bytes
    value: str | bytes
    expires_seconds: int
    """0: never."""


class Chord(NamedTuple):
    """A chord to begin."""

    id: str
    size: int
    """Number of parts it waits for; 0: not known yet."""
    about: bytes
    """Data for ``finish``, in a format of the caller."""
    finish: bytes
    """The message that the last part puts in front of its queue; empty: the process that counts it sends one."""
    expires_seconds: int
    """0: never."""


class ChordPart(NamedTuple):
    """The outcome of one task in a chord's header."""

    chord: str
    slot: str
    """Identifies the part; a repeated one counts once."""
    is_success: int
    """1 or 0. A stored success stays; a repeat replaces anything else."""
    value: bytes
    expires_seconds: int
    """0: never."""


class Pause(NamedTuple):
    """A pause of one key of a rate, which a run asks for."""

    limit: str
    key: str
    ends_at: float
    """``time.monotonic()`` of this machine."""

    @property
    def left_ms(self) -> int:
        """How long it still lasts."""
        return max(0, round((self.ends_at - monotonic()) * 1_000))


class BudgetedRun(NamedTuple):
    """A run that counts for the retry budget of its task type."""

    task: str
    period_ms: int


class CircuitRun(NamedTuple):
    """The end of a run, for the circuit breaker of its task type."""

    task: str
    kind: str
    """Class of its error; empty: it succeeded."""
    failures: int
    """Number of failures of one kind that open the circuit."""
    within_ms: int
    """In this time; 0: in a row."""
    open_ms: int


class Event(NamedTuple):
    """An event to publish when its follow-up is queued."""

    channel: str
    body: bytes


class TickName(NamedTuple):
    """Identifies a tick of a schedule."""

    schedule: str
    id: str
    """Id of its task."""
    due_ms: int


def tick_of(headers: Mapping[str, Any]) -> TickName | None:
    """Return the tick that the headers of a task name; ``None``: there is none, or its headers are invalid.

    Any client can write such headers; the server checks whether the schedule has sent that tick.
    """
    schedule, identity, due_at = headers.get(SCHEDULE_HEADER), headers.get("id"), headers.get(DUE_HEADER)
    if not isinstance(schedule, str) or not isinstance(identity, str):
        return None
    try:
        return TickName(schedule.encode().decode(), identity.encode().decode(), round(due_at * 1_000))  # type: ignore[operator]
    except (TypeError, ValueError, OverflowError):
        return None


class EndOfTick(NamedTuple):
    """The end of a tick's run."""

    schedule: str
    id: str
    due_ms: int
    state: str
    """``SUCCESS``, ``FAILURE``, ``REVOKED``, ``REJECTED``, ``IGNORED``; ``STARTED`` if acknowledged early."""
    took_ms: int


class EndOfTask(NamedTuple):
    """The record of a finished task for the history."""

    most: int
    """Maximum number of records waiting to be written; the oldest are dropped."""
    packed: bytes
    """See ``completions.Finished``."""


class Settlement:
    """Collects the effects of one run. Can be pickled: a child process returns it to its parent."""

    __slots__ = (
        "budgeted",
        "chords",
        "circuit",
        "end",
        "events",
        "external_writes",
        "finished",
        "kept",
        "messages",
        "parts",
        "pauses",
        "postings",
        "results",
        "run",
        "tick",
    )

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.messages: list[Message] = []
        self.postings: list[Any] = []
        """Follow-ups for a broker other than Redis, in a format of their sender; never pickled."""
        self.parts: list[ChordPart] = []
        self.chords: list[Chord] = []
        self.finished: list[str] = []
        """Ids of chords whose parts have been read and can be deleted."""
        self.events: list[Event] = []
        self.external_writes: list[Any] = []
        """Writes that the result backend carries out first, in this order and its own format:
        to another server, or too large for one step."""
        self.tick: EndOfTick | None = None
        self.run: CountedRun | None = None
        self.end: EndOfTask | None = None
        self.budgeted: BudgetedRun | None = None
        self.circuit: CircuitRun | None = None
        self.pauses: tuple[Pause, ...] = ()
        """They hold however the run ends."""
        self.kept = (0, 0)
        """Number of messages and postings that stay when the rest is dropped."""

    def add(self, message: Message) -> None:
        """Collect a follow-up.

        Raises:
            TooManyFollowUps: There are ``FOLLOW_UPS_MOST`` already.
        """
        if len(self.messages) >= FOLLOW_UPS_MOST:
            raise TooManyFollowUps(FOLLOW_UPS_MOST)
        # Nobody waits to learn it of a follow-up, and a settlement is pickled.
        self.messages.append(message if message.on_taken is None else message._replace(on_taken=None))

    def post(self, posting: Any) -> None:
        """Collect a follow-up for a broker other than Redis."""
        self.postings.append(posting)

    def keep(self) -> None:
        """Send what has been collected so far even if the run still fails: a retry, a replacement."""
        self.kept = len(self.messages), len(self.postings)

    def keep_nothing(self) -> None:
        """Send nothing of what was kept if the run fails: the retry is not allowed."""
        self.kept = (0, 0)

    def keep_results_only(self) -> None:
        """Drop everything except the results."""
        for collected in (self.messages, self.postings, self.parts, self.chords, self.finished, self.events):
            collected.clear()

    def drop(self) -> None:
        """Drop what was collected before the run failed, except what is kept."""
        del self.messages[self.kept[0] :], self.postings[self.kept[1] :]
        for collected in (self.results, self.parts, self.chords, self.finished, self.events, self.external_writes):
            collected.clear()

    def steps(self) -> list[Any]:
        """Return the steps of the script ``settle`` for one claim, except the one that counts its run."""
        steps: list[Any] = []
        for chord in self.chords:
            steps += (STEP_CHORD, *chord)
        for part in self.parts:
            steps += (STEP_CHORD_PART, *part)
        for chord_id in self.finished:
            steps += (STEP_CHORD_FINISHED, chord_id)
        for message in self.messages:
            steps += (STEP_MESSAGE, *message[:5])
        for publication in publications(self.messages) if self.messages else ():
            steps += (STEP_EVENT, *publication)
        for event in self.events:
            steps += (STEP_EVENT, *event)
        if self.tick is not None or self.pauses or self.budgeted is not None or self.circuit is not None:
            steps += self._rare_steps()
        # Last, so that no client sees a success if another step was refused.
        for result in self.results:
            steps += (STEP_RESULT, *result)
        if self.end is not None:
            steps += (STEP_HISTORY, *self.end)
        return steps

    def _rare_steps(self) -> list[Any]:
        steps: list[Any] = [] if self.tick is None else [STEP_TICK, *self.tick]
        for pause in self.pauses:
            steps += (STEP_PAUSE, pause.limit, pause.key, pause.left_ms)
        if self.budgeted is not None:
            steps += (STEP_COUNT_FOR_BUDGET, *self.budgeted)
        if self.circuit is not None:
            steps += (STEP_CIRCUIT, *self.circuit)
        return steps


_settlement: ContextVar[Settlement | None] = ContextVar("taskapp_settlement", default=None)
_collecting: ContextVar[Settlement | None] = ContextVar("taskapp_collecting", default=None)
"""Separate from ``_settlement``: background work started by a task's body keeps sending on its own."""


def current() -> Settlement | None:
    """Return the settlement that collects messages sent in this context; ``None``: they are sent at once."""
    return _collecting.get()


def of_this_run() -> Settlement | None:
    """Return the settlement of the run in this context; ``None``: there is none, or its message was settled before."""
    return _settlement.get()


def is_only_awaited_by_its_slot() -> bool:
    """Return whether this context sends follow-ups of a run outside an event loop, so that only its slot waits."""
    if current() is None:
        return False
    try:
        get_running_loop()
    except RuntimeError:
        return True
    return False


class settling:  # noqa: N801 - used like contextlib's functions, at a third of their cost
    """Makes ``settlement`` that of the run inside; ``None``: the run has none, even if one is active outside."""

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
    """Lets the run's settlement collect messages sent inside; does nothing if the run has none.

    Args:
        drop: Drop earlier messages at the start, see ``Settlement.drop``.
        keep: Keep the collected messages at the end, see ``Settlement.keep``.
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
