"""Celery's result backends on Redis, with taskapp's way of storing and waiting."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from time import time
from typing import Any

from celery import states
from celery.backends import redis
from kombu.exceptions import EncodeError
from kombu.utils.encoding import bytes_to_str
from redis.connection import Connection

from taskapp.background import in_child
from taskapp.celery_internals import cached_meta, is_single_result
from taskapp.devredis.login import guarded
from taskapp.engine.settlement import Chord, Result, Settlement, collecting, current, settling
from taskapp.errors.tasks import UnreadableResult
from taskapp.redis.link import over_resp2
from taskapp.results.async_waiter import Awaiter
from taskapp.results.chords import Chords
from taskapp.results.decoding import BoundedDecoding
from taskapp.results.deferred_store import DeferredStore
from taskapp.results.encoding import encoded, to_json
from taskapp.results.errbacks import Errbacks
from taskapp.results.failures import Failures
from taskapp.results.literal_dicts import SIGN, as_literal
from taskapp.results.reaching import Reaching
from taskapp.results.size import ResultSize
from taskapp.results.started_delay import StartedWriter
from taskapp.results.store import ChordSize, EndOfRun, Record, Store, StoreOutcome, fence_of
from taskapp.results.waiting import ResultConsumer
from taskapp.transport.codec import sent_at_of

TRAVELS_BYTES = 1_000_000
"""Size above which a result is written separately, before its run is settled; a child process writes it itself."""

TRACEBACK_MOST = 1 << 16
"""Number of characters kept of a traceback that is too large."""

BEGUN_MOST = 200_000
"""Maximum number of runs shown as started whose start time is kept until they end."""

logger = logging.getLogger(__name__)


class Results(BoundedDecoding, Reaching, Failures, Errbacks, Chords):
    """Makes Celery's Redis backend store in one fenced round trip, and subscribe only while waiting.

    Keys, values and channels stay Celery's, so that stock clients and Flower can read them.
    One backend serves all threads of a process.
    """

    ResultConsumer = ResultConsumer
    measures_results = True
    """Whether storing a result that is too large is refused."""
    connparams: dict[str, Any]

    result_retry_seconds = 300.0
    """How long to retry storing a result while its server is away, before the error is raised."""
    started_after_seconds = 0.2
    """How long a task must run before it shows as STARTED; 0: at once."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Subscribed connections are read without redis-py's handling of RESP3.
        self.connparams = over_resp2(self.connparams)
        if own_server := self._transport_options.get("own_server"):
            self.connparams = guarded(self.connparams, Path(own_server))
        self.thread_safe = True
        self.store = Store(lambda: self.client.connection_pool, self._transport_options.get("global_keyprefix", ""))
        """Writes at once, outside the steps that settle runs."""
        self._started = StartedWriter(self._write_started)
        self._begun_here = set()
        self._begun: dict[str, float] = {}
        """Task id to start of its run, Unix seconds, for runs that were shown as started."""
        self._is_child = False
        in_child(Results.leave_to_parent, owner=self)

    # --- storing ------------------------------------------------------------------------------

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_: Any
    ) -> Any:
        """Encode and store a result, see ``_store_result``; STARTED only if the run takes ``started_after_seconds``."""
        if state == states.STARTED and request is not None and self.started_after_seconds:
            task_id = bytes_to_str(task_id)
            self._started.hold(task_id, (task_id, result, state, traceback, request), self.started_after_seconds)
            return result
        result = self.encode_result(result, state)
        self._store_result(task_id, result, state, traceback, request)
        return result

    def encode(self, data: Any) -> Any:
        """Return ``data`` in the backend's format, as kombu does, but with a reused encoder.

        Raises:
            kombu.exceptions.EncodeError: The format cannot represent it.
        """
        if not self._is_plain:
            return super().encode(as_literal(data) if self.serializer == "json" else data)
        try:
            text = to_json(data)
            return to_json(as_literal(data)) if SIGN in text else text
        except Exception as error:
            raise EncodeError(error) from error

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_: Any
    ) -> Any:
        """Store a result encoded by ``encode_result``; retry for ``result_retry_seconds`` while the server is away.

        The result of a run that ends is only collected: it is stored when the run is settled, or before by ``later``.

        Raises:
            ResultTooLarge: It takes more than TASKAPP_MAX_RESULT_BYTES.
            kombu.exceptions.EncodeError: It cannot be encoded.
            ResultServerGone: The server was away for that long.
            redis.ResponseError: The server refused it permanently.
        """
        self._take(self._record(bytes_to_str(task_id), result, state, traceback, request))
        return result

    def _take(self, record: Record) -> None:
        run, is_small = current(), len(record.value) <= TRAVELS_BYTES
        if run is not None and is_small and self._settles:
            self._started.drop(record.task_id)
            run.results.append(Result(record.key, record.value, record.keep_seconds))
        elif run is not None and (is_small or not self._is_child):
            self._started.forget(record.task_id)
            run.external_writes.append(record)
        else:
            self._started.drop(record.task_id)
            self._write(record, retry_seconds=self.result_retry_seconds)

    @cached_property
    def later(self) -> DeferredStore:
        """Stores results of ended runs on this server, so that nothing else waits for it."""
        return DeferredStore(self.store_elsewhere)

    def store_elsewhere(self, settlement: Settlement, *, retry_seconds: float = math.inf) -> None:
        """Carry out the external writes of ``settlement``, and add their follow-ups to it.

        Raises:
            ResultServerGone: The server was away for ``retry_seconds``.
            redis.ResponseError: The server refused it permanently.
        """
        while settlement.external_writes:
            step = settlement.external_writes[0]
            if isinstance(step, Record):
                self._started.drop(step.task_id)
                self._write(step, retry_seconds=retry_seconds)
            elif isinstance(step, Chord):
                self.store.begin_chord(step, retry_seconds=retry_seconds)
            elif isinstance(step, ChordSize):
                self.store.set_chord_size(*step, retry_seconds=retry_seconds)
            elif isinstance(step, EndOfRun):
                self.store.end_tick(step, retry_seconds=retry_seconds)
            else:
                with settling(settlement), collecting():
                    self._count(step, retry_seconds=retry_seconds)
            del settlement.external_writes[0]

    def server(self) -> tuple[Callable[[], Connection], str]:
        """Return a function that opens connections to the result server, outside its pool, and the key prefix."""
        pool = self.client.connection_pool
        return lambda: pool.connection_class(**pool.connection_kwargs), self._transport_options.get(
            "global_keyprefix", ""
        )

    @cached_property
    def _settles(self) -> bool:
        """Whether results can be stored in the step that settles their run."""
        return self._lies_beside_messages and self._is_plain

    @property
    def _is_plain(self) -> bool:
        """Whether results are JSON that scripts can inspect."""
        return self.compression is None and self.serializer == "json"

    def mark_as_done(self, *args: Any, **options: Any) -> None:
        """Record a success, in the step that settles the run."""
        with collecting():
            super().mark_as_done(*args, **options)

    def mark_as_failure(self, task_id: str, exc: Any, traceback: Any = None, request: Any = None, **rest: Any) -> None:
        """Record a failure, in the step that settles the run, and drop the follow-ups of a success."""
        # Without a request it concerns another task, whose failure follows from the end of this one.
        with collecting(drop=request is not None):
            super().mark_as_failure(task_id, exc, traceback, request, **rest)

    def mark_as_retry(self, *args: Any, **options: Any) -> Any:
        """Record that the task will run again, in the step that settles this run."""
        with collecting():
            return super().mark_as_retry(*args, **options)

    def mark_as_revoked(self, *args: Any, **options: Any) -> None:
        """Record that the task was revoked or has expired, in the step that settles it."""
        with collecting():
            super().mark_as_revoked(*args, **options)

    def _write_started(self, held: Any) -> None:
        """Write a delayed STARTED; one that cannot be written is dropped, because it soon becomes useless."""
        task_id, result, state, *rest = held
        self._begun[task_id] = time() - self.started_after_seconds
        if len(self._begun) > BEGUN_MOST:
            self._begun.pop(next(iter(self._begun)), None)
        try:
            record = self._record(task_id, self.encode_result(result, state), state, *rest)
            self._write(record, retry_seconds=0)
        except Exception as error:  # noqa: BLE001 - arguments of a running task may change while they are encoded
            logger.debug("could not show task %s as started: %s", task_id, error, extra={"action": "started_lost"})

    def _record(self, task_id: str, result: Any, state: str, traceback: Any, request: Any) -> Record:
        fence = fence_of(request, task_id, with_lease=self._keeps_claim(request))
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = task_id
        if self._begun:
            meta |= self._times(task_id, state, request)
        if fence.run > 0:
            meta = {"status": state, "run": fence.run, **meta}  # where ``store.lua`` looks for it
        value = encoded(self.encode, meta, request)
        if len(value) > self.size.most:
            value = self._smaller(meta, value)
        keep_seconds = self.failure_expires if state == states.FAILURE else self.expires
        is_final = state in states.READY_STATES
        return Record(task_id, self._task_prefix + task_id.encode(), value, keep_seconds or 0, is_final, fence)

    def _smaller(self, meta: dict[str, Any], value: Any) -> Any:
        """Return a smaller encoding of ``meta``, whose encoding ``value`` exceeds the limit.

        Raises:
            ResultTooLarge: The returned value itself, or the state of a running task, is too large.
        """
        if meta["status"] in states.EXCEPTION_STATES:
            # The error itself fits; its traceback may not.
            return self.encode({**meta, "traceback": str(meta["traceback"] or "")[-TRACEBACK_MOST:]})
        self.size.check_encoded(len(self.encode(meta["result"])))
        return value

    @cached_property
    def size(self) -> ResultSize:
        """Limit for the size of a result."""
        return ResultSize(self)

    def _times(self, task_id: str, state: str, request: Any) -> dict[str, float]:
        """Return the start time of a run that was shown as started, and the submit time of its task."""
        began_at = self._begun.get(task_id) if state == states.STARTED else self._begun.pop(task_id, None)
        if began_at is None:
            return {}
        sent_at = sent_at_of(getattr(request, "__dict__", {}))
        return {"started_at": round(began_at, 3)} | ({} if sent_at is None else {"sent_at": sent_at})

    @cached_property
    def _task_prefix(self) -> bytes:
        return bytes(self.get_key_for_task("*"))[:-1]

    def _get_result_meta(
        self, result: Any, state: str, traceback: Any, request: Any, *rest: Any, **options: Any
    ) -> Any:
        if rest or options or not request or getattr(request, "stamps", None):
            return super()._get_result_meta(result, state, traceback, request, *rest, **options)
        # The same as Celery's, without reading the configuration and every attribute with a default each time.
        known = request.__dict__
        children = known.get("_children")
        meta = {
            "status": state,
            "result": result,
            "traceback": traceback,
            "children": [child.as_tuple() for child in children] if children else [],
            "date_done": datetime.now(self._zone).isoformat() if state in states.READY_STATES else None,
        }
        if group := known.get("group"):
            meta["group_id"] = group
        if parent := known.get("parent_id"):
            meta["parent_id"] = parent
        if self._is_extended:
            delivery = known.get("delivery_info")
            meta |= {"name": known.get("task"), "args": known.get("args"), "kwargs": known.get("kwargs")}
            meta |= {"worker": known.get("hostname"), "retries": getattr(request, "retries", 0)}
            meta["queue"] = delivery.get("routing_key") if delivery else None
        return meta

    @cached_property
    def _zone(self) -> Any:
        return self.app.timezone

    @cached_property
    def _is_extended(self) -> bool:
        return bool(self.app.conf.find_value_for_key("extended", "result"))

    def _write(self, record: Record, *, retry_seconds: float) -> None:
        if self._hides_success(record.task_id):
            return
        outcome = self.store.write(record, retry_seconds=retry_seconds)
        if outcome < StoreOutcome.KEPT and record.is_final:
            logger.warning(
                "the result of task %s was not stored: this run has lost its claim on the task, "
                "and the run that holds it now decides the outcome",
                record.task_id, extra={"action": "result_stale"},
            )  # fmt: skip

    def _hides_success(self, task_id: str) -> bool:
        """Return whether a success is stored that the script cannot see, compressed or in a binary format."""
        if self._is_plain:
            return False
        try:
            return bool(self._get_task_meta_for(task_id)["status"] == states.SUCCESS)
        except UnreadableResult:
            return False

    def _keeps_claim(self, request: Any) -> bool:
        """Return whether the claim of the run that ``request`` describes can be checked when its result is stored.

        Not for results on another server, nor for a task acknowledged before it runs, nor for results that the worker
        records from outside a run: Celery first acknowledges a run whose process died.
        """
        if not self._lies_beside_messages or getattr(request, "called_directly", True):
            return False
        return bool(getattr(self._task_types.get(request.task), "acks_late", False))

    @cached_property
    def _task_types(self) -> Any:
        return self.app.tasks

    @cached_property
    def _lies_beside_messages(self) -> bool:
        conf = self.app.conf
        broker_url, options = conf.broker_read_url or conf.broker_url, conf.broker_transport_options or {}
        # Celery takes "redis+" off the URL of a Unix socket.
        if not self.url or broker_url.removeprefix("redis+") != self.url.removeprefix("redis+"):
            return False
        if self.url.startswith("sentinel"):
            return bool(options.get("master_name") == self._transport_options.get("master_name"))
        # kombu and Celery interpret a database in the query differently for messages and results.
        return "db=" not in self.url and "virtual_host=" not in self.url

    # --- waiting ------------------------------------------------------------------------------

    @cached_property
    def awaiter(self) -> Awaiter:
        """Waits for results on behalf of this process's coroutines."""
        consumer = self.result_consumer
        return Awaiter(
            lambda: self.client.connection_pool, self.mget, consumer.answer_seconds, consumer.patience_seconds
        )

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing: only a wait for the result subscribes."""

    def add_pending_result(self, result: Any, weak: bool = False, start_drainer: bool = True) -> Any:  # noqa: ARG002, FBT001, FBT002
        """Remember a result, so that any wait calls its callbacks; costs no round trip."""
        if not weak:
            self.result_consumer.remember(result)
        return result

    def add_pending_results(self, results: Sequence[Any], weak: bool = False) -> list[Any]:  # noqa: FBT001, FBT002
        """Remember several results, see ``add_pending_result``."""
        return [self.add_pending_result(result, weak=weak) for result in results]

    def remove_pending_result(self, result: Any) -> Any:
        """Forget a result remembered by ``add_pending_result``; also called when a result is garbage-collected."""
        self.result_consumer.disregard(result)
        return result

    def iter_native(self, result: Any, no_ack: bool = True, **options: Any) -> Iterator[tuple[str, Any]]:  # noqa: FBT001, FBT002
        """Yield ``(task id, outcome)`` for results in a set as they arrive; for groups, last, ``(id, results)``."""
        self._ensure_not_eager()
        members = [node for node in result.results if is_single_result(node)]
        awaited = {id(node): node for node in members if cached_meta(node) is None}
        yield from ((node.id, cached_meta(node)) for node in members if id(node) not in awaited)
        for resolved in self._wait_for_pending(result, no_ack=no_ack, **options):
            for node in resolved:
                if awaited.pop(id(node), None) is not None:
                    yield node.id, cached_meta(node)
        # Another thread waiting for the same object may have resolved it.
        yield from ((node.id, cached_meta(node)) for node in awaited.values() if cached_meta(node) is not None)
        yield from ((node.id, node.children) for node in result.results if not is_single_result(node))

    def leave_to_parent(self) -> None:
        """Make a forked child create its own clients: another thread may have held the lock of their pool."""
        scripts = ("_chord_part_return_script", "_chord_cleanup_script", "_chord_claim_extend_script")
        for name in ("client", "awaiter", "later", *scripts):
            self.__dict__.pop(name, None)
        self._is_child = True


class RedisBackend(Results, redis.RedisBackend):  # type: ignore[misc]  # the stubs have another signature
    """Results on one Redis: ``redis://``, ``rediss://`` or ``redis+socket://``."""


class SentinelBackend(Results, redis.SentinelBackend):  # type: ignore[misc]  # the same
    """Results on the Redis master that Sentinel names: ``sentinel://``."""
