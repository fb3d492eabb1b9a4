"""Results that a submit returns: cheap to create, with ``aget`` for coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic

from celery import result as stock
from celery import states
from celery.exceptions import ChordError
from celery.exceptions import TimeoutError as ResultTimeoutError
from kombu.utils.encoding import bytes_to_str
from kombu.utils.objects import cached_property
from vine import promise

from taskapp.celery_internals import cached_meta, is_single_result, note_meta, read_meta
from taskapp.client.type_parameters import R_co
from taskapp.results.async_waiter import WatchedResult
from taskapp.results.backend import Results
from taskapp.results.failures import may_be_raised
from taskapp.results.trees import leaves, parents

POLL_SECONDS = 0.5
"""How often to read a store that does not announce results; the same as Celery."""

if TYPE_CHECKING:
    from taskapp.client.result_types import EagerInterface, ResultInterface
    from taskapp.client.result_types import GroupInterface as _GroupResult
    from taskapp.client.result_types import SetInterface as _ResultSet
else:
    ResultInterface, EagerInterface = stock.AsyncResult, stock.EagerResult

    class _ResultSet(stock.ResultSet):
        __class_getitem__ = classmethod(GenericAlias)

    class _GroupResult(stock.GroupResult):
        __class_getitem__ = classmethod(GenericAlias)


class AsyncResult(ResultInterface[R_co]):
    """Celery's result of a task, of type ``R_co``, which can be awaited: ``await result`` is ``await result.aget()``.

    Its promise is created when it is first used.
    """

    id: str
    _cache: Any = None
    _ignored = False

    def __init__(
        self, id: str, backend: Any = None, task_name: str | None = None, app: Any = None, parent: Any = None  # noqa: ARG002 - Celery's
    ) -> None:  # fmt: skip
        if id is None:
            raise ValueError(f"AsyncResult requires valid id, not {type(id)}")
        if app is not None:
            self.app = app
        self.id = id if isinstance(id, str) else bytes_to_str(id) if isinstance(id, bytes) else str(id)
        self.backend = backend or self.app.backend
        if parent is not None:
            self.parent = parent

    def _set_cache(self, d: Any) -> Any:
        # For all kinds of stores; the Redis backend has already done it.
        d["result"] = may_be_raised(d.get("result"))
        return super()._set_cache(d)

    @cached_property
    def on_ready(self) -> Any:
        """Promise that is fulfilled when the result is ready."""
        return promise(self._on_fulfilled, weak=True)

    def get(self, timeout: float | None = None, propagate: bool = True, *args: Any, **options: Any) -> R_co:  # noqa: FBT001, FBT002 - Celery's signature
        """Return the result, like Celery; for a failed chord, always raise the error of its header."""
        try:
            return super().get(timeout, propagate, *args, **options)
        except ChordError:
            # Celery checks the header before and during the wait, which may both be too early.
            if options.get("follow_parents", True) and self.parent:
                self._maybe_reraise_parent_error()
            raise

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self.aget().__await__()

    async def aget(self, timeout: float | None = None, *, propagate: bool = True, follow_parents: bool = True) -> R_co:
        """Return the result like ``get``, without blocking the event loop.

        It also works inside an async task, without blocking a slot. Stores other than Redis are read by a thread.

        Args:
            timeout: Seconds to wait; ``None``: no limit.
            propagate: Raise the error of a failed task instead of returning it.
            follow_parents: Also raise the error of an earlier task in a chain.

        Raises:
            celery.exceptions.TimeoutError: The result was not ready within ``timeout``.
            ResultServerGone: The server was away for a minute.
        """
        if self.ignored:
            return None  # type: ignore[return-value]  # as in Celery
        arrival = _Arrival(propagate=propagate)
        arrival.expect([self])
        if follow_parents and propagate:
            arrival.look_at(list(parents(self)))
        try:
            await arrival.wait(timeout)
        except ChordError:
            if follow_parents and self.parent:
                await asyncio.to_thread(self._maybe_reraise_parent_error)
            raise
        value: R_co = _value(self, propagate=propagate)
        return value


class EagerResult(EagerInterface[R_co]):
    """Celery's result of a task that ran eagerly, which can be awaited."""

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self.aget().__await__()

    async def aget(self, timeout: float | None = None, *, propagate: bool = True, **_: Any) -> R_co:  # noqa: ARG002 - it is ready
        """Return the result."""
        return self.get(propagate=propagate, disable_sync_subtasks=False)


class _Several(Generic[R_co]):
    """Common part of the sets of results."""

    results: Any
    backend: Any

    def __await__(self) -> Generator[Any, Any, list[R_co]]:
        return self.aget().__await__()

    async def aget(self, timeout: float | None = None, *, propagate: bool = True) -> list[R_co]:
        """Return the results in order like ``get``, without blocking the event loop; see ``AsyncResult.aget``.

        With ``propagate``, the first error ends the wait.
        """
        arrival = _Arrival(propagate=propagate)
        arrival.expect(list(leaves(self)))
        await arrival.wait(timeout)
        return [_value(each, propagate=propagate) for each in self.results]

    def join_native(self, *args: Any, **options: Any) -> Any:
        """Return the results in order, like Celery; also those of duplicates, which are results of one task."""
        values = super().join_native(*args, **options)  # type: ignore[misc]  # of Celery's set
        last = {result.id: index for index, result in enumerate(self.results)}
        if values is None or len(last) == len(values):
            return values
        return [values[last[result.id]] for result in self.results]


class ResultSet(_Several[R_co], _ResultSet[R_co]):
    """Celery's set of results, which can be awaited together."""


class GroupResult(_Several[R_co], _GroupResult[R_co]):
    """Celery's results of a group, which can be awaited together."""


class _Arrival:
    """The results that one coroutine waits for."""

    def __init__(self, *, propagate: bool) -> None:
        self._propagate = propagate
        self._pending: dict[bytes, list[Any]] = {}
        self._unawaited: set[int] = set()
        self._missing = 0
        self._failed: Any = None
        self._backend: Any = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def expect(self, results: list[Any]) -> None:
        """Make the wait end when all of ``results`` are ready."""
        self._missing += len(results)
        self._take_in(results)

    def look_at(self, results: list[Any]) -> None:
        """Make an error among ``results`` end the wait, too."""
        self._unawaited.update(id(result) for result in results)
        self._take_in(results)

    def _take_in(self, results: list[Any]) -> None:
        for result in results:
            if cached_meta(result) is not None:
                self._note(result)
            else:
                self._backend = self._backend or result.backend
                self._pending.setdefault(self._key(result), []).append(result)

    def _key(self, result: Any) -> bytes:
        if isinstance(self._backend, Results):
            return bytes(self._backend.get_key_for_task(result.id))
        return str(result.id).encode()

    async def wait(self, timeout: float | None) -> None:
        """Wait until all results are ready.

        Raises:
            celery.exceptions.TimeoutError: They were not ready within ``timeout`` seconds.
            Exception: With ``propagate``, the error of a failed task.
        """
        try:
            if self._missing and self._failed is None:
                async with asyncio.timeout(timeout):
                    await self._hear_all()
        except TimeoutError as error:
            raise ResultTimeoutError("The operation timed out.") from error
        if self._failed is not None:
            self._failed.maybe_throw()

    async def _hear_all(self) -> None:
        if not isinstance(self._backend, Results):
            await self._poll()
            return
        awaiter = self._backend.awaiter
        watch = WatchedResult(self._pending, self._hear, self._fail)
        awaiter.watch(watch)
        try:
            await self._over
        finally:
            awaiter.forget(watch)

    async def _poll(self) -> None:
        """Poll another kind of store on a thread, because its own wait blocks."""
        while True:
            waiting = [
                result for results in self._pending.values() for result in results if cached_meta(result) is None
            ]
            await asyncio.to_thread(_read, waiting)
            for result in waiting:
                if cached_meta(result) is not None:
                    self._note(result)
            if self._over.done():
                return
            await asyncio.sleep(POLL_SECONDS)

    def _hear(self, key: bytes, payload: bytes) -> None:
        try:
            meta = self._backend.read_result(key, payload)
            if meta["status"] in states.READY_STATES:
                for result in self._pending.pop(key, ()):
                    note_meta(result, meta)
                    self._note(result)
        except Exception as error:  # noqa: BLE001 - raised by the wait
            self._fail(error)

    def _note(self, result: Any) -> None:
        """Record a result that is ready."""
        if id(result) not in self._unawaited:
            self._missing -= 1
        if self._failed is None and self._propagate and cached_meta(result)["status"] in states.PROPAGATE_STATES:
            self._failed = result
        if (not self._missing or self._failed is not None) and not self._over.done():
            self._over.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self._over.done():
            self._over.set_exception(error)


def _read(results: list[Any]) -> None:
    """Load each of ``results`` from its store; blocks."""
    for result in results:
        read_meta(result)


def _value(result: Any, *, propagate: bool) -> Any:
    """Return the value of a ready ``result``, or a list of values for a set."""
    if is_single_result(result):
        return result.get(propagate=propagate, follow_parents=False, disable_sync_subtasks=False)
    return [_value(member, propagate=propagate) for member in result.results]
