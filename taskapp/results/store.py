"""Writes results: fenced, in one round trip, with retries while the server is away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache
from typing import Any, NamedTuple

from celery.worker import state as worker_state
from redis import ConnectionPool, ResponseError
from redis.exceptions import ClusterDownError, MasterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError

from taskapp.background import in_child
from taskapp.engine.settlement import COPY_HEADER, Chord, ChordPart, EndOfTick, TickName, tick_of
from taskapp.redis.keys import Keys
from taskapp.redis.link import REFUSALS, Link
from taskapp.redis.outage import SERVER_GONE, Outage

UNKNOWN_RUN = -1
TICK_KEPT_SECONDS = 86_400
"""How long a repeated message of a tick is recognised as a repeat."""
PASSING_PROBLEMS = (OutOfMemoryError, ReadOnlyError, MasterDownError, ClusterDownError, TryAgainError)
"""Refusals that end without changing the request: a failover, a full disk, full memory."""


class StoreOutcome(IntEnum):
    """Outcome of writing a result; the numbers are those of ``store.lua``."""

    STORED = 1
    KEPT = 0
    """A success, or the final result of the same run, was already stored and stays."""
    CLAIM_LOST = -1
    """Stale: the claim on the message is gone, so another run decides."""
    OVERTAKEN = -2
    """Stale: a later run has written."""


class Fence(NamedTuple):
    """Lets the server decide whether a run still counts."""

    run: int = UNKNOWN_RUN
    """Increases with every run of the task, by redelivery, retry or replacement."""
    lease: str = ""
    """Key of the hash whose field ``tag`` exists while the claim holds; empty if it cannot be checked."""
    tag: str = ""


class Record(NamedTuple):
    """One result, ready to be written."""

    task_id: str
    key: bytes
    value: str | bytes
    keep_seconds: int
    """0: forever."""
    is_final: bool
    fence: Fence


class ChordSize(NamedTuple):
    """Number of parts that a chord waits for, set after it began."""

    chord: str
    size: int
    keep_seconds: int


class CountedPart(NamedTuple):
    """A part of a chord to count on a separate result server, with the queue of its message."""

    part: ChordPart
    queue: str
    trace: dict[str, str] | None = None
    """Headers of the trace of its task, for the message sent after the last part."""


class TickRun(NamedTuple):
    """One run of a tick on a broker other than Redis."""

    tick: TickName
    copy: str
    """Identifies the publication of the tick; a message published again has another value."""
    number: int
    """Increases with every retry."""


class EndOfRun(NamedTuple):
    """End of such a run."""

    run: TickRun
    end: EndOfTick


def tick_run_of(headers: Mapping[str, Any]) -> TickRun | None:
    """Return the run of the tick that a task's ``headers`` describe; ``None``: it is not a tick."""
    tick = tick_of(headers)
    if tick is None:
        return None
    retries, replaced, copy = headers.get("retries"), headers.get("replaced_task_nesting"), headers.get(COPY_HEADER)
    return TickRun(tick, copy if isinstance(copy, str) else "", (replaced or 0) * 1_000_000 + (retries or 0))


def fence_of(request: Any, task_id: str, *, with_lease: bool) -> Fence:
    """Return the fence of the run that ``request`` (a Celery ``Context``) describes.

    Args:
        request: ``None``, or a request without the engine's properties, gives an empty fence.
        task_id: Task whose result is written; a task may set the state of another, whose runs differ.
        with_lease: Whether the lease is on the result server, and held until the result is stored.
    """
    properties = getattr(request, "properties", None)
    if not properties or "deliveries" not in properties:
        return Fence()
    run = _run(request, properties["deliveries"]) if request.id == task_id else UNKNOWN_RUN
    return Fence(run, properties["lease"], properties["delivery_tag"]) if with_lease else Fence(run)


def _run(request: Any, deliveries: int) -> int:
    """Return a number that increases with every run, including retries and replacements, which are new messages."""
    replaced, retries = request.replaced_task_nesting or 0, request.retries or 0
    return int((replaced * 1_000_000 + retries) * 1_000 + min(deliveries, 999))


class Store:
    """Writes results over one persistent connection, from any thread, in any forked child."""

    def __init__(self, pool: Callable[[], ConnectionPool], prefix: str) -> None:
        self._pool, self._prefix = pool, prefix
        self._start_over()
        in_child(Store._start_over, owner=self)

    def _start_over(self) -> None:
        # Reopens the same connection object: each new one would count against the pool's limit.
        make: Any = cache(lambda: self._pool().make_connection())
        self._link = Link(make)
        # For the engine's scripts for chords and ticks; opened only when needed.
        make_second: Any = cache(lambda: self._pool().make_connection())
        self._engine_link = Link(make_second)

    def write(self, record: Record, *, retry_seconds: float) -> StoreOutcome:
        """Write ``record`` in one round trip and return the outcome.

        Retries for up to ``retry_seconds`` while the server is away or refuses for a passing reason;
        writing a result twice is safe.

        Raises:
            ResultServerGone: The server was away for that long.
            redis.ResponseError: It refused.
        """
        doing = f"storing the result of task {record.task_id}"
        return StoreOutcome(self._insist(doing, lambda: self._run(record), retry_seconds))

    def _insist(self, doing: str, attempt: Callable[[], Any], retry_seconds: float) -> Any:
        outage = Outage(doing, retry_seconds)
        while True:
            try:
                answer = attempt()
            except (*SERVER_GONE, ResponseError) as error:
                if _is_lasting(error) or _worker_ends_at_once():
                    raise
                # Another server may soon answer under the same name.
                self._link.close()
                self._engine_link.close()
                outage.pause(error)
            else:
                outage.end()
                return answer

    def _run(self, record: Record) -> int:
        _, key, value, keep_seconds, is_final, fence = record
        return int(self._link.run("results/store", self._prefix, key, value, keep_seconds, int(is_final), *fence))

    # --- ticks of another broker; errors and retries as for ``write`` ------------------------------

    def begin_tick(self, run: TickRun, *, is_again: bool, retry_seconds: float) -> str:
        """Return ``run`` if the run may start, otherwise why not: ``running`` or ``ended``.

        Args:
            run: The run to start.
            is_again: Whether the broker may have delivered this very message before.
            retry_seconds: How long to wait for the server.
        """
        arguments = (*run.tick, run.copy, run.number, int(is_again), TICK_KEPT_SECONDS)
        attempt = lambda: self._engine_link.run("run_tick", self._prefix, 0, *arguments)  # noqa: E731
        doing = f"task {run.tick.id} of schedule {run.tick.schedule!r}"
        return str(self._insist(doing, attempt, retry_seconds).decode())

    def end_tick(self, end: EndOfRun, *, retry_seconds: float) -> None:
        """Record in the schedule how a run ended, if it is the run that counts."""
        arguments = (*end.end, end.run.copy, end.run.number, TICK_KEPT_SECONDS)
        attempt = lambda: self._engine_link.run("end_tick", self._prefix, 0, *arguments)  # noqa: E731
        self._insist(f"schedule {end.end.schedule!r}", attempt, retry_seconds)

    # --- chords; errors and retries as for ``write`` -----------------------------------------------

    def begin_chord(self, chord: Chord, *, retry_seconds: float) -> None:
        """Begin ``chord``, replacing one with the same id."""
        self._on_chord(chord.id, lambda: self._engine_link.run("chord", self._prefix, 0, *chord), retry_seconds)

    def set_chord_size(self, chord_id: str, size: int, keep_seconds: int, *, retry_seconds: float) -> None:
        """Set how many parts a chord waits for; the first value set counts."""
        key = Keys(self._prefix)("chord", chord_id)
        commands: list[tuple[Any, ...]] = [("HSETNX", key, "size", size)]
        commands += [("EXPIRE", key, keep_seconds)] if keep_seconds else []
        self._on_chord(chord_id, lambda: self._engine_link.pipeline(commands), retry_seconds)

    def extend_chord(self, chord_id: str, *, retry_seconds: float) -> None:
        """Make a chord wait for one more part."""
        key = Keys(self._prefix)("chord", chord_id)
        self._on_chord(chord_id, lambda: self._engine_link.command("HINCRBY", key, "extra", 1), retry_seconds)

    def count_part(self, part: ChordPart, queue: str, *, retry_seconds: float) -> bool:
        """Count ``part``; return whether the caller must send the message that finishes the chord."""
        run = lambda: self._engine_link.run("part", self._prefix, 0, *part, queue)  # noqa: E731
        return bool(self._on_chord(part.chord, run, retry_seconds))

    def has_chord(self, chord_id: str) -> bool:
        """Return whether a chord has begun and has not finished; does not retry."""
        key = Keys(self._prefix)("chord", chord_id)
        return bool(self._on_chord(chord_id, lambda: self._engine_link.command("EXISTS", key), 0))

    def read_chord(self, chord_id: str, *, retry_seconds: float) -> tuple[bytes | None, list[bytes]]:
        """Return the data stored when the chord began, ``None`` if it is gone, and the values of its parts."""
        keys = Keys(self._prefix)
        commands = [("HGET", keys("chord", chord_id), "about"), ("HVALS", keys("chord_parts", chord_id))]
        about, parts = self._on_chord(chord_id, lambda: self._engine_link.pipeline(commands), retry_seconds)
        return about, [part[1:] for part in parts]

    def forget_chord(self, chord_id: str, *, retry_seconds: float) -> None:
        """Delete a finished chord."""
        keys = Keys(self._prefix)
        command = ("DEL", keys("chord", chord_id), keys("chord_parts", chord_id))
        self._on_chord(chord_id, lambda: self._engine_link.command(*command), retry_seconds)

    def _on_chord(self, chord_id: str, attempt: Callable[[], Any], retry_seconds: float) -> Any:
        return self._insist(f"chord {chord_id}", attempt, retry_seconds)


def _is_lasting(error: Exception) -> bool:
    passes = isinstance(error, PASSING_PROBLEMS) or str(error).startswith(REFUSALS)
    return isinstance(error, ResponseError) and not passes


def _worker_ends_at_once() -> bool:
    """Return whether this worker must end without finishing its tasks, as ``WorkerTerminate`` asks."""
    return worker_state.should_terminate is not None and worker_state.should_terminate is not False  # 0 counts, too
