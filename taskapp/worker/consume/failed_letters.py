"""Tasks whose messages were buried without a run's end: they fail, and so do the chords and chains they belong to."""

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

from taskapp.client.deferred_publish import post
from taskapp.engine.counters import CountedRun
from taskapp.engine.dead_letters import DeadLetter, DeadLetters
from taskapp.engine.envelope import unseal
from taskapp.engine.headers import sound_headers
from taskapp.engine.heartbeat import native_thread
from taskapp.engine.options import Buried
from taskapp.engine.settlement import EndOfTick, Settlement, settling, tick_of
from taskapp.errors import CrashedTooOften, NotSettled, TaskappError
from taskapp.errors.wording import in_words, shown
from taskapp.redis.link import Link
from taskapp.results.chords import Chords
from taskapp.transport.codec import Unreadable, read_follow_ups, read_headers
from taskapp.worker.consume.completion import end_of_message

logger = get_logger(__name__)

PROTOCOL_1 = ("id", "task", "errbacks", "chord")
"""Fields read from the body of a task that has no headers."""
FINISHING_LOOK_SECONDS = 0.01
UNREACHABLE = (RedisError, OSError, OperationalError, TaskappError)


class Dead(NamedTuple):
    """What can be read of a message that is not to run any more."""

    headers: Mapping[str, Any]
    """Those that are right; at least ``id`` and ``task``, which may be empty."""
    embed: Mapping[str, Any] | None
    """What follows it; ``None``: that cannot be read."""
    queue: str
    priority: int = 0
    deliveries: int = 0


class DeadTaskFailer:
    """Fails tasks one after the other, on a thread of its own: no heartbeat and no loop waits for results.

    A letter that could not be told of stays unreported with the engine, which asks another node after a lease.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._waiting: dict[Buried, Buried] = {}
        self._queue: SimpleQueue[tuple[str, Callable[[], None]]] = SimpleQueue()
        self._is_started = False
        self._letters: DeadLetters | None = None

    def tell(self, buried: Iterable[Buried]) -> None:
        """Take note of letters of the engine whose tasks have to fail; of those that wait already, once.

        Any thread may.
        """
        for each in buried:
            if self._waiting.setdefault(each, each) is each:
                self._put(f"{each.task}[{each.id}]", partial(self._fail_buried, each))

    def fail(self, message: Any, error: Exception, then: Callable[[], None]) -> None:
        """Fail the task of a message that another broker is to drop, then call ``then`` on the same thread."""
        dead = dead_of(message)
        self._put(f"{dead.headers['task']}[{dead.headers['id']}]", partial(self._fail_elsewhere, dead, error, then))

    def finish(self, within_seconds: float) -> None:
        """Wait until the letters told of so far are done with, if that does not take longer."""
        deadline = monotonic() + within_seconds
        while self._waiting and monotonic() < deadline:
            sleep(FINISHING_LOOK_SECONDS)

    def _put(self, name: str, tell: Callable[[], None]) -> None:
        self._queue.put((name, tell))
        if not self._is_started:
            self._is_started = True
            native_thread(self._run)

    def _run(self) -> None:
        while True:
            name, tell = self._queue.get()
            try:
                tell()
            except UNREACHABLE as unreachable:
                self._letters = None
                logger.warning("the failure of %s could not be stored: %s", name, unreachable)
            except BaseException:  # whatever is wrong with one task, others are waiting, and no other thread comes
                logger.exception("the failure of %s could not be stored", name)

    def _fail_buried(self, buried: Buried) -> None:
        try:
            if self._letters is None:
                # A connection of this thread's own: gevent lets no thread read what another has opened.
                with self._app.engine() as engine:
                    self._letters = DeadLetters(Link(engine.link.connect), engine.prefix)
            fail_buried(self._app, buried, self._letters)
        finally:
            self._waiting.pop(buried, None)

    def _fail_elsewhere(self, dead: Dead, error: Exception, then: Callable[[], None]) -> None:
        try:
            if not dead.headers["id"]:
                logger.error("of a message that is dropped no id can be read: nobody is told of its end")
                return
            settlement = failure_of(self._app, dead, error)
            if settlement.external_writes:
                backend_of(self._app, dead.headers["task"]).store_elsewhere(settlement)
            post(self._app, settlement.postings)
        finally:
            then()


def fail_buried(app: Any, buried: Buried, letters: DeadLetters) -> None:
    """Give a task the engine buried by itself a result, count it in its chord, send its errbacks: once, in one step."""
    letter = letters.get(buried.queue, buried.number)
    settlement, task = Settlement(), buried.task
    if letter is not None:
        dead = _read(letter, buried)
        task = dead.headers["task"]
        if dead.headers["id"]:
            settlement = failure_of(app, dead, _error(letter, dead))
        else:
            logger.error("of dead letter %s no id can be read: nobody is told of its end", letter.name)
    if settlement.external_writes:
        backend_of(app, task).store_elsewhere(settlement)
    try:
        letters.settle(buried.queue, buried.number, settlement)
    except NotSettled as refused:
        logger.error("%s; only its result is stored", refused)
        settlement.keep_results_only()
        letters.settle(buried.queue, buried.number, settlement)


def failure_of(app: Any, dead: Dead, error: Exception) -> Settlement:
    """Return what the failure of a task leaves: result, part of a chord, errbacks, what is counted and told.

    Raises:
        Exception: The result backend refused the result, or could not be reached.
    """
    try:
        settlement = _settled(app, dead, error)
    except UNREACHABLE:
        raise
    except BaseException as refused:  # noqa: BLE001 - of follow-ups nobody can make sense of, or a receiver that exits
        logger.error("what follows task %s cannot be told of its failure: %s", dead.headers["id"], shown(refused))
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
    """Store a failure, and tell what follows of it."""
    headers, embed = dead.headers, dead.embed
    # What a node adds to the headers of a message it runs is not to come from the message.
    own = {"properties": None, "delivery_info": {"routing_key": dead.queue}, "args": None, "kwargs": None}
    request = Context({**headers, **(embed or {}), **own})
    backend = backend_of(app, headers["task"])
    if embed is None and isinstance(backend, Chords):
        # Which chord it is says the group; one that is none counts nothing.
        request.chord = request.group
    backend.mark_as_failure(headers["id"], error, request=request)


def dead_of(message: Any) -> Dead:
    """Return what can be read of one of kombu's messages."""
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    queue = (message.delivery_info or {}).get("routing_key")
    embed = read_follow_ups(message.body, message.content_type)
    if "task" not in headers:
        with suppress(Exception):  # of protocol 1, which has them in its body, or of no task at all
            headers, embed = {key: message.payload.get(key) for key in PROTOCOL_1}, {}
    return Dead({"id": "", "task": "", **sound_headers(headers)}, embed, queue if isinstance(queue, str) else "")


def _read(letter: DeadLetter, buried: Buried) -> Dead:
    envelope = unseal(letter.raw)
    try:
        headers, embed = read_headers(envelope)
    except Unreadable:
        headers, embed = {}, None
    known = sound_headers(headers)
    # What the engine knows of it counts, whatever it says of itself.
    known["id"] = envelope.id or buried.id or known.get("id") or ""
    known["task"] = envelope.task or buried.task or known.get("task") or ""
    return Dead(known, embed, buried.queue, letter.priority, letter.deliveries)


def _error(letter: DeadLetter, dead: Dead) -> Exception:
    task = dead.headers["task"]
    if letter.reason == "unknown task":
        return NotRegistered(task)
    if letter.reason == "crashed":
        return CrashedTooOften(task, dead.headers["id"])
    return NotSettled(task, letter.error) if letter.reason == "failed" else InvalidTaskError(letter.error)


def backend_of(app: Any, name: str) -> Any:
    """Return where the results of a task type are stored, also of one this node lacks."""
    task = app.tasks.get(name)
    return task.backend if task is not None else app.backend
