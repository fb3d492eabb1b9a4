"""Waiting for results: read, subscribe, read again, then listen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery import states
from celery.backends.asynchronous import BaseResultConsumer
from celery.exceptions import TimeoutError as ResultTimeoutError
from redis import ConnectionError as RedisConnectionError
from redis import TimeoutError as RedisTimeoutError
from vine import barrier

from taskapp.celery_internals import cached_meta, note_meta
from taskapp.redis.outage import SERVER_GONE, Outage
from taskapp.redis.subscriptions import Listener, Subscriptions
from taskapp.results.trees import leaves, parents

TICK_SECONDS = 1.0
"""Maximum time between two calls of ``on_interval``, and between two checks of the deadline."""
READ_AT_ONCE = 1_000
CROWDED = 1_000
"""Number of remembered results from which those that need not be remembered are removed."""


class ResultConsumer(BaseResultConsumer):
    """Lets any number of threads wait for results over one subscribed connection."""

    patience_seconds = 60.0
    """How long a wait tolerates an absent server before it raises."""

    def __init__(self, backend: Any, *args: Any, **options: Any) -> None:
        super().__init__(backend, *args, **options)
        self.backend: Any = backend
        self.answer_seconds = backend.connparams.get("socket_timeout") or 5.0
        self._subscriptions = Subscriptions(lambda: backend.client.connection_pool, self.answer_seconds)
        self._remembered: dict[int, Any] = {}
        self._crowded = CROWDED

    # --- what Celery calls --------------------------------------------------------------------

    def consume_from(self, task_id: str) -> None:
        """Do nothing: a subscription begins with a wait."""

    def cancel_for(self, task_id: str) -> None:
        """Do nothing: a subscription ends with the wait."""

    def on_after_fork(self) -> None:
        """Forget the parent's connection."""
        self._subscriptions.start_over()

    def stop(self) -> None:
        """Close the connection; a wait still in progress opens another."""
        self._subscriptions.close()

    def _wait_for_pending(
        self, result: Any, timeout: float | None = None, on_interval: Callable[[], Any] | None = None,
        on_message: Callable[[dict[str, Any]], Any] | None = None, **_: Any,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """Yield results as they are resolved, until ``result`` is ready.

        Raises:
            celery.exceptions.TimeoutError: It was not ready within ``timeout`` seconds.
            redis.ConnectionError, redis.TimeoutError: The first read failed.
            ResultServerGone: The server was away for ``patience_seconds`` without a break.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        wait = _Wait(self.backend, [*leaves(result), *self._with_callbacks()], on_message)
        yield wait.read()
        outage = Outage(f"waiting for {result!r}", self.patience_seconds)
        try:
            while not result.on_ready.ready:
                remaining_seconds = TICK_SECONDS if deadline is None else deadline - time.monotonic()
                if remaining_seconds <= 0:
                    raise ResultTimeoutError("The operation timed out.")
                yield self._step(wait, min(remaining_seconds, TICK_SECONDS), outage)
                if on_interval is not None:
                    _call(on_interval, result, outage)
        finally:
            self._subscriptions.leave(wait.listener)
            if not _listeners(result):
                self.disregard(result)

    def _step(self, wait: _Wait, seconds: float, outage: Outage) -> list[Any]:
        listener, subscriptions = wait.listener, self._subscriptions
        try:
            if not subscriptions.has(listener):
                subscriptions.join(listener)
                wait.has_read = False
            elif listener.is_confirmed and not wait.has_read:
                resolved = wait.read()
                wait.has_read = True
                outage.end()
                return resolved
            else:
                subscriptions.listen(listener, seconds)
        except SERVER_GONE as error:
            outage.pause(error, at_most_seconds=seconds)
        return wait.take()

    # --- results with callbacks ---------------------------------------------------------------

    def remember(self, result: Any) -> None:
        """Keep ``result`` so that any wait may call its callbacks."""
        if result.on_ready.ready:
            return
        self._remembered[id(result)] = result
        if len(self._remembered) > self._crowded:
            # Otherwise members of groups that nobody waits for would stay forever.
            self._crowded = CROWDED + 2 * len(list(self._with_callbacks()))

    def disregard(self, result: Any) -> None:
        """Forget ``result``."""
        self._remembered.pop(id(result), None)

    def _with_callbacks(self) -> Iterator[Any]:
        for result in list(self._remembered.values()):
            listeners = _listeners(result)
            if listeners and all(isinstance(listener, barrier) for listener in listeners):
                self.disregard(result)  # it has only a group's callback, and a group reads its members itself
            elif listeners:
                yield result


class _Wait:
    """The results that one call waits for."""

    def __init__(
        self, backend: Any, results: Iterable[Any], on_message: Callable[[dict[str, Any]], Any] | None
    ) -> None:
        self._backend, self._on_message = backend, on_message
        self._pending: dict[bytes, dict[int, Any]] = {}
        for result in results:
            if cached_meta(result) is None:
                self._pending.setdefault(backend.get_key_for_task(result.id), {})[id(result)] = result
        self.listener = Listener(self._pending)
        self.has_read = False

    def read(self) -> list[Any]:
        """Read all missing results; return those that are now resolved."""
        keys, resolved = list(self._pending), []
        for start in range(0, len(keys), READ_AT_ONCE):
            chunk = keys[start : start + READ_AT_ONCE]
            for key, payload in zip(chunk, self._backend.mget(chunk), strict=True):
                if payload:
                    resolved += self._resolve(key, payload)
        return resolved

    def take(self) -> list[Any]:
        """Return the results resolved by received messages."""
        resolved, inbox = [], self.listener.inbox
        while inbox:
            resolved += self._resolve(*inbox.popleft())
        return resolved

    def _resolve(self, key: bytes, payload: bytes) -> list[Any]:
        if key not in self._pending:
            return []
        meta = self._backend.read_result(key, payload)
        if self._on_message is not None:
            self._on_message(meta)
        if meta["status"] not in states.READY_STATES:
            return []
        results = list(self._pending.pop(key).values())
        for result in results:
            if cached_meta(result) is None:
                note_meta(result, meta)
        return results


def _listeners(result: Any) -> list[Any]:
    return [listener for listener in result.on_ready.listeners if listener is not None]


def _call(on_interval: Callable[[], Any], result: Any, outage: Outage) -> None:
    """Call ``on_interval``; Celery's own reads the parents of ``result`` from a server that may be away."""
    try:
        on_interval()
    except (RedisConnectionError, RedisTimeoutError) as error:
        if any(known["result"] is error for known in map(cached_meta, parents(result)) if known):
            raise  # the error is the outcome of a parent
        outage.pause(error, at_most_seconds=TICK_SECONDS)
