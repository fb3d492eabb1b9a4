"""The result backend of a test: taskapp's own, on the engine in memory. A wait runs what is due."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from celery import states
from celery.backends import redis
from celery.exceptions import TimeoutError as ResultTimeoutError

from taskapp.engine.settlement import Chord, ChordPart
from taskapp.errors import TaskappError
from taskapp.redis.outage import Outage
from taskapp.results.async_waiter import Awaiter, WatchedResult
from taskapp.results.backend import Results
from taskapp.results.deferred_store import DeferredStore, Ended
from taskapp.results.started_delay import StartedWriter
from taskapp.results.store import Record, Store, StoreOutcome
from taskapp.results.waiting import ResultConsumer
from taskapp.testing.engine import MemoryEngine
from taskapp.testing.transport import URL

RunNext = Callable[[], bool]
"""Runs the next task that is due; returns whether there was one."""

_RedisBackend: Any = redis.RedisBackend  # the stubs have another signature


class ResultNotReady(TaskappError, ResultTimeoutError):
    """A result is awaited, nothing is due, and the clock moves only when told."""

    def __init__(self, waiting: str) -> None:
        super().__init__(
            f"the result is not ready and nothing is due; waiting: {waiting or 'no task'}; "
            "move the clock with tasks.advance(…)"
        )


class MemoryStore(Store):
    """Writes results and chords into the engine."""

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine

    def write(self, record: Record, *, retry_seconds: float) -> StoreOutcome:  # noqa: ARG002 - the server is never away
        """Store a result."""
        value = record.value.encode() if isinstance(record.value, str) else record.value
        is_stored = self._engine.values.store(record.key, value, record.keep_seconds)
        return StoreOutcome.STORED if is_stored else StoreOutcome.KEPT

    def begin_chord(self, chord: Chord, *, retry_seconds: float) -> None:  # noqa: ARG002 - as all below
        """Begin ``chord``."""
        self._engine.chords.begin(chord)

    def set_chord_size(self, chord_id: str, size: int, keep_seconds: int, *, retry_seconds: float) -> None:  # noqa: ARG002
        """Set how many parts a chord waits for."""
        self._engine.chords.set_size(chord_id, size)

    def extend_chord(self, chord_id: str, *, retry_seconds: float) -> None:  # noqa: ARG002
        """Make a chord wait for one more part."""
        self._engine.chords.extend(chord_id)

    def count_part(self, part: ChordPart, queue: str, *, retry_seconds: float) -> bool:  # noqa: ARG002
        """Count ``part``; the engine itself finishes the chord."""
        self._engine.count_part(part, queue)
        return False

    def has_chord(self, chord_id: str) -> bool:  # noqa: ARG002
        """Return ``True``: no other program begins chords here."""
        return True

    def read_chord(self, chord_id: str, *, retry_seconds: float) -> tuple[bytes | None, list[bytes]]:  # noqa: ARG002
        """Return the data of a chord and the values of its parts."""
        return self._engine.chords.read(chord_id)

    def forget_chord(self, chord_id: str, *, retry_seconds: float) -> None:  # noqa: ARG002
        """Delete a finished chord."""
        self._engine.chords.forget(chord_id)


class RunningConsumer(ResultConsumer):
    """Runs tasks while a caller waits for a result."""

    def _step(self, wait: Any, seconds: float, outage: Outage) -> list[Any]:  # noqa: ARG002 - nothing is away
        backend: MemoryResults = self.backend
        if not backend.run_next():
            raise ResultNotReady(backend.waiting())
        resolved: list[Any] = wait.read()
        return resolved


class RunningAwaiter(Awaiter):
    """Runs tasks while a coroutine waits for results; on the thread of its loop, which is the test's."""

    def __init__(self, backend: MemoryResults) -> None:
        self._backend = backend

    def watch(self, watch: WatchedResult) -> None:
        """Run what is due until the results are stored, and pass them to ``watch``."""
        missing = dict.fromkeys(watch.keys)
        while True:
            for key, payload in zip(list(missing), self._backend.mget(list(missing)), strict=True):
                if payload is not None and self._is_final(key, payload):
                    del missing[key]
                    watch.hear(key, payload)
            if not missing:
                return
            if not self._backend.run_next():
                watch.fail(ResultNotReady(self._backend.waiting()))
                return

    def _is_final(self, key: bytes, payload: bytes) -> bool:
        return self._backend.read_result(key, payload)["status"] in states.READY_STATES

    def forget(self, watch: WatchedResult) -> None:
        """Do nothing: the wait is over."""


class NeverStarted(StartedWriter):
    """By the clock of the test no run takes long enough to show as STARTED."""

    def hold(self, task_id: str, record: Any, seconds: float) -> None:
        """Do nothing."""


class StoreAtOnce(DeferredStore):
    """Stores the results that do not travel with a settlement, on the thread of the run."""

    def put(self, ended: Ended) -> None:
        """Store the results of ``ended``, then settle it."""
        self._finish(ended)


class MemoryResults(Results, _RedisBackend):
    """Results in the engine in memory.

    Args:
        app: The app under test.
        engine: Keeps the results.
        run_next: Called while somebody waits for a result.
        waiting: Returns which tasks wait, for errors.
    """

    ResultConsumer = RunningConsumer
    _lies_beside_messages = True

    def __init__(self, app: Any, engine: MemoryEngine, run_next: RunNext, waiting: Callable[[], str]) -> None:
        super().__init__(app=app, url=URL)
        self.values, self.run_next, self.waiting = engine.values, run_next, waiting
        self.store = MemoryStore(engine)
        self._started = NeverStarted(lambda _: None)

    @cached_property
    def awaiter(self) -> Awaiter:
        """Waits for coroutines."""
        return RunningAwaiter(self)

    @cached_property
    def later(self) -> DeferredStore:
        """Stores large results."""
        return StoreAtOnce(self.store_elsewhere)

    def _get_result_meta(self, *args: Any, **options: Any) -> Any:
        meta = super()._get_result_meta(*args, **options)
        if meta.get("date_done"):
            meta["date_done"] = self.app.now().isoformat()
        return meta

    # --- Celery's key-value interface -------------------------------------------------------------

    def get(self, key: Any) -> Any:
        """Return the value of a key."""
        return self.values.get(_key(key))

    def mget(self, keys: Any) -> list[Any]:
        """Return the values of several keys."""
        return [self.values.get(_key(key)) for key in keys]

    def set(self, key: Any, value: Any, **_: Any) -> None:
        """Store the result of a group, for as long as those of tasks."""
        self.values.put(_key(key), value.encode() if isinstance(value, str) else value, self.expires or 0)

    def delete(self, key: Any) -> None:
        """Delete a key."""
        self.values.delete(_key(key))

    def expire(self, key: Any, value: float) -> None:
        """Let a key expire in ``value`` seconds."""
        self.values.expire(_key(key), value)

    def cleanup(self) -> None:
        """Do nothing: results expire by the clock."""


def _key(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key
