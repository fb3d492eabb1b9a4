"""Tasks that were buried without a run's end: they fail, and so do the chords and chains they belong to."""

from __future__ import annotations

from _queue import SimpleQueue  # the native one: gevent's would block its hub
from collections.abc import Iterable, Mapping
from typing import Any

from celery.app.task import Context
from celery.exceptions import InvalidTaskError, NotRegistered
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.broker.dead_letters import DeadLetter
from taskapp.broker.envelope import unseal
from taskapp.broker.heartbeat import native_thread
from taskapp.broker.message_format import Unreadable, read_headers
from taskapp.broker.options import Buried
from taskapp.broker.settlement import EndOfTick, Settlement, settling, tick_of
from taskapp.broker.totals import CountedRun
from taskapp.errors import CrashedTooOften, NotSettled, TaskappError
from taskapp.results.chords import Chords
from taskapp.worker.finished import end_of_message

logger = get_logger(__name__)


class Teller:
    """Fails buried tasks one after the other, on a thread of its own: no heartbeat and no loop waits for results.

    What it does not get done stays untold with the engine, which tells another node after a lease.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._waiting: dict[Buried, Buried] = {}
        self._queue: SimpleQueue[Buried] = SimpleQueue()
        self._is_started = False

    def tell(self, buried: Iterable[Buried]) -> None:
        """Take note of tasks to fail; those that wait already, once. Any thread may."""
        for each in buried:
            if self._waiting.setdefault(each, each) is each:
                self._queue.put(each)
        if self._waiting and not self._is_started:
            self._is_started = True
            native_thread(self._run)

    def _run(self) -> None:
        while True:
            each = self._queue.get()
            try:
                fail_buried(self._app, each)
            except (RedisError, OSError, OperationalError, TaskappError) as unreachable:
                logger.warning("the failure of %s[%s] could not be stored: %s", each.task, each.id, unreachable)
            except Exception:  # whatever is wrong with one task, others are waiting
                logger.exception("the failure of %s[%s] could not be stored", each.task, each.id)
            self._waiting.pop(each, None)


def fail_buried(app: Any, buried: Buried) -> None:
    """Give a task the engine buried by itself a result, count it in its chord, send its errbacks: once, in one step."""
    settlement = Settlement()
    with app.engine() as engine:
        letters = engine.dead_letters
        letter = letters.get(buried.queue, buried.number)
        headers, embed = _read(letter)
        known = {"id": buried.id, "task": buried.task, **headers}
        if letter is not None and known["id"]:
            with settling(settlement):
                _fail(app, known, embed, buried.queue, _error(letter, known))
            settlement.tick, settlement.run = _end_of_tick(known), CountedRun(known["task"], "failed")
            settlement.end = end_of_message(
                app, known, buried.queue, _text(_error(letter, known)),
                priority=letter.priority, deliveries=letter.deliveries,
            )  # fmt: skip
        if settlement.elsewhere:
            backend_of(app, known["task"]).store_elsewhere(settlement)
        try:
            letters.settle(buried.queue, buried.number, settlement)
        except NotSettled as refused:
            logger.error("%s; only its result is stored", refused)
            settlement.keep_results_only()
            letters.settle(buried.queue, buried.number, settlement)


def settle_unreadable(app: Any, message: Any, problem: str) -> Settlement:
    """Return what is to be done with the end of a message no worker can use: as far as it can be read, it fails."""
    settlement = Settlement()
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    if isinstance(headers.get("id"), str) and isinstance(headers.get("task"), str):
        queue = (message.delivery_info or {}).get("routing_key", "")
        try:
            with settling(settlement):
                _fail(app, headers, None, queue, InvalidTaskError(problem))
            settlement.tick, settlement.run = _end_of_tick(headers), CountedRun(headers["task"], "failed")
            settlement.end = end_of_message(app, headers, queue, problem)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a message, the worker goes on
            logger.warning("the failure of %s could not be stored: %s", headers["id"], error)
            settlement.drop()
    return settlement


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _end_of_tick(headers: Mapping[str, Any]) -> EndOfTick | None:
    tick = tick_of(headers)
    return EndOfTick(*tick, "FAILURE", 0) if tick is not None else None


def _read(letter: DeadLetter | None) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    if letter is None:
        return {}, None
    try:
        return read_headers(unseal(letter.raw))
    except Unreadable:
        return {}, None


def _error(letter: DeadLetter, known: Mapping[str, Any]) -> Exception:
    if letter.reason == "unknown task":
        return NotRegistered(known["task"])
    if letter.reason == "crashed":
        return CrashedTooOften(known["task"], known["id"])
    return NotSettled(known["task"], letter.error)


def _fail(app: Any, headers: Mapping[str, Any], embed: Mapping[str, Any] | None, queue: str, error: Exception) -> None:
    """Mark a task as failed; ``embed`` is ``None`` where what it belongs to cannot be read."""
    request = Context({**headers, **(embed or {})}, delivery_info={"routing_key": queue})
    backend = backend_of(app, headers["task"])
    if embed is None and isinstance(backend, Chords):
        # Which chord it is says the group; one that is none counts nothing.
        request.chord = request.group
    backend.mark_as_failure(headers["id"], error, request=request)


def backend_of(app: Any, name: str) -> Any:
    """Return where the results of a task type are stored, also of one this node lacks."""
    task = app.tasks.get(name)
    return task.backend if task is not None else app.backend
