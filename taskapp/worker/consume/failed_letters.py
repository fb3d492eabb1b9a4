"""Fails tasks whose messages were buried outside a run, and with them their chords and chains."""

from __future__ import annotations

from _queue import SimpleQueue  # the native one: gevent's would block its hub
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from time import monotonic, sleep
from typing import Any, NamedTuple

from celery.app.task import Context
from celery.exceptions import InvalidTaskError, NotRegistered
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.background import start_native_thread
from taskapp.client.deferred_publish import post
from taskapp.engine.counters import CountedRun
from taskapp.engine.dead_letters import REFUSED_BY_LIMITS, DeadLetter, DeadLetters
from taskapp.engine.envelope import unseal
from taskapp.engine.headers import FOLLOW_UPS, sound_headers
from taskapp.engine.options import Buried
from taskapp.engine.settlement import EndOfTick, Settlement, settling, tick_of
from taskapp.errors import CrashedTooOften, NotSettled, NotStarted, TaskappError
from taskapp.errors.wording import in_words, shown
from taskapp.redis.link import Link
from taskapp.results.chords import Chords
from taskapp.transport.codec import Unreadable, read_follow_ups, read_headers
from taskapp.worker.consume.completion import end_of_message

logger = get_logger(__name__)

PROTOCOL_1 = ("id", "task", "errbacks", "chord")
"""Fields read from the body of a protocol 1 message, which has no headers."""
FINISHING_LOOK_SECONDS = 0.01
UNREACHABLE = (RedisError, OSError, OperationalError, TaskappError)


class Dead(NamedTuple):
    """The readable parts of a message that will not run."""

    headers: Mapping[str, Any]
    """The valid headers; always includes ``id`` and ``task``, which may be empty."""
    embed: Mapping[str, Any] | None
    """Follow-ups of the task; ``None`` if they cannot be read."""
    queue: str
    priority: int = 0
    deliveries: int = 0


class DeadTaskFailer:
    """Fails tasks one at a time on its own thread, so that neither heartbeat nor event loop waits for results.

    If a failure cannot be stored, its letter stays unreported; the engine hands it to another node after a lease.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._waiting: dict[Buried, Buried] = {}
        self._queue: SimpleQueue[tuple[str, Callable[[], None]]] = SimpleQueue()
        self._is_started = False
        self._letters: DeadLetters | None = None

    def fail_later(self, buried: Iterable[Buried]) -> None:
        """Queue the engine's letters whose tasks have to fail, except those already queued. Thread-safe."""
        for each in buried:
            if self._waiting.setdefault(each, each) is each:
                self._put(f"{each.task}[{each.id}]", partial(self._fail_buried, each))

    def fail(self, message: Any, error: Exception, then: Callable[[], None]) -> None:
        """Fail the task of another broker's message, then call ``then``, which rejects it, on the same thread."""
        dead = dead_of(message)
        self._put(f"{dead.headers['task']}[{dead.headers['id']}]", partial(self._fail_elsewhere, dead, error, then))

    def finish(self, within_seconds: float) -> None:
        """Wait up to ``within_seconds`` for the queued letters to be handled."""
        deadline = monotonic() + within_seconds
        while self._waiting and monotonic() < deadline:
            sleep(FINISHING_LOOK_SECONDS)

    def _put(self, name: str, fail: Callable[[], None]) -> None:
        self._queue.put((name, fail))
        if not self._is_started:
            self._is_started = True
            start_native_thread(self._run, name="failed-letters")

    def _run(self) -> None:
        while True:
            name, fail = self._queue.get()
            try:
                fail()
            except UNREACHABLE as unreachable:
                self._letters = None
                logger.warning("could not store the failure of task %s: %s", name, unreachable)
            except BaseException:  # one bad task must not end the only thread that serves the others
                logger.exception("could not store the failure of task %s", name)

    def _fail_buried(self, buried: Buried) -> None:
        try:
            if self._letters is None:
                # A separate connection: gevent lets no thread read from a socket that another has opened.
                with self._app.engine() as engine:
                    self._letters = DeadLetters(Link(engine.link.connect), engine.prefix)
            fail_buried(self._app, buried, self._letters)
        finally:
            self._waiting.pop(buried, None)

    def _fail_elsewhere(self, dead: Dead, error: Exception, then: Callable[[], None]) -> None:
        try:
            if not dead.headers["id"]:
                logger.error("dropping a message without a readable task id; its failure cannot be recorded")
                return
            settlement = failure_of(self._app, dead, error)
            if settlement.external_writes:
                backend_of(self._app, dead.headers["task"]).store_elsewhere(settlement)
            post(self._app, settlement.postings)
        finally:
            then()


def fail_buried(app: Any, buried: Buried, letters: DeadLetters) -> None:
    """Store the failure of a task that the engine buried, count it in its chord and send its errbacks, in one step."""
    letter = letters.get(buried.queue, buried.number)
    settlement, task = Settlement(), buried.task
    if letter is not None:
        dead = _read(letter, buried)
        task = dead.headers["task"]
        if dead.headers["id"]:
            settlement = failure_of(app, dead, _error(letter, dead))
        else:
            logger.error("dead letter %s has no readable task id; its failure cannot be recorded", letter.name)
    if settlement.external_writes:
        backend_of(app, task).store_elsewhere(settlement)
    try:
        letters.settle(buried.queue, buried.number, settlement)
    except NotSettled as refused:
        logger.error("%s; storing only its result", refused)
        settlement.keep_results_only()
        letters.settle(buried.queue, buried.number, settlement)


def failure_of(app: Any, dead: Dead, error: Exception) -> Settlement:
    """Return the settlement of a failed task: its result, chord part, errbacks, counters and history record.

    Raises:
        Exception: The result backend refused the result, or could not be reached.
    """
    try:
        settlement = _settled(app, dead, error)
    except UNREACHABLE:
        raise
    except BaseException as refused:  # noqa: BLE001 - malformed follow-ups, or a receiver that exits
        logger.error(
            "could not pass the failure of task %s on to its follow-ups: %s", dead.headers["id"], shown(refused)
        )
        settlement = _settled(app, dead._replace(embed=None), error)
    headers, task = dead.headers, dead.headers["task"]
    tick = tick_of(headers)
    settlement.tick = EndOfTick(*tick, "FAILURE", 0) if tick is not None else None
    settlement.run = CountedRun(task, "failed")
    settlement.end = end_of_message(
        app, headers, dead.queue, in_words(error),
        priority=dead.priority, deliveries=dead.deliveries,
    )  # fmt: skip
    return settlement


def _settled(app: Any, dead: Dead, error: Exception) -> Settlement:
    settlement = Settlement()
    with settling(settlement):
        mark_as_failed(app, dead, error)
    return settlement


def mark_as_failed(app: Any, dead: Dead, error: Exception) -> None:
    """Store a failure and pass it on to the follow-ups."""
    headers, embed = dead.headers, dead.embed
    # Fields that a node adds when it runs a message must not come from the message itself.
    own = {"properties": None, "delivery_info": {"routing_key": dead.queue}, "args": None, "kwargs": None}
    # Without ``embed``, no follow-ups at all: headers may hold some, too.
    request = Context({**headers, **(dict.fromkeys(FOLLOW_UPS) if embed is None else embed), **own})
    backend = backend_of(app, headers["task"])
    if embed is None and isinstance(backend, Chords):
        # The group id identifies the chord; for a group without a chord, nothing is counted.
        request.chord = request.group
    backend.mark_as_failure(headers["id"], error, request=request)


def dead_of(message: Any) -> Dead:
    """Return the readable parts of a kombu message."""
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    queue = (message.delivery_info or {}).get("routing_key")
    embed = read_follow_ups(message.body, message.content_type)
    if "task" not in headers:
        with suppress(Exception):  # protocol 1 has these fields in the body; otherwise this is not a task
            headers, embed = {key: message.payload.get(key) for key in PROTOCOL_1}, {}
    return Dead({"id": "", "task": "", **sound_headers(headers)}, embed, queue if isinstance(queue, str) else "")


def _read(letter: DeadLetter, buried: Buried) -> Dead:
    envelope = unseal(letter.raw)
    try:
        headers, embed = read_headers(envelope)
    except Unreadable:
        headers, embed = {}, None
    known = sound_headers(headers)
    # The engine's own record takes precedence over the headers.
    known["id"] = envelope.id or buried.id or known.get("id") or ""
    known["task"] = envelope.task or buried.task or known.get("task") or ""
    return Dead(known, embed, buried.queue, letter.priority, letter.deliveries)


def _error(letter: DeadLetter, dead: Dead) -> Exception:
    task = dead.headers["task"]
    if letter.reason == "unknown task":
        return NotRegistered(task)
    if letter.reason == "crashed":
        return CrashedTooOften(task, dead.headers["id"])
    if letter.error.startswith(REFUSED_BY_LIMITS):
        return NotStarted(task, dead.headers["id"], letter.error.removeprefix(REFUSED_BY_LIMITS))
    return NotSettled(task, letter.error) if letter.reason == "failed" else InvalidTaskError(letter.error)


def backend_of(app: Any, name: str) -> Any:
    """Return the result backend of a task type; the app's backend for a type that this node lacks."""
    task = app.tasks.get(name)
    return task.backend if task is not None else app.backend
