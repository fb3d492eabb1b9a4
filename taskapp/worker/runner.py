"""How one run of a task goes and what comes of it: Celery's tracer, cut where the task's own function runs.

    begin ──► the function ──► succeed ──► end
                    └──► fail (failure, retry, rejected, ignored) ──┘

``celery.app.trace.build_tracer`` does the same in one closure of 320 lines that cannot wait for a
coroutine. What it promises (order of hooks, signals, follow-ups and results; which error means what)
is promised here; a test runs both on the same tasks, and another notes when Celery's changes.
"""

from __future__ import annotations

import logging
import os
from asyncio import CancelledError
from collections.abc import Callable, Generator, Mapping
from itertools import islice
from time import monotonic
from types import CoroutineType
from typing import Any, Protocol

from billiard.einfo import ExceptionInfo
from celery import _state, group, signals, states
from celery.app import task as stock_task
from celery.app import trace as stock_trace
from celery.app.task import Context
from celery.app.trace import (
    IGNORE_STATES,
    IGNORED,
    LOG_IGNORED,
    LOG_SUCCESS,
    REJECTED,
    TraceInfo,
    get_task_name,
    report_internal_error,
    task_has_custom,
    traceback_clear,
)
from celery.canvas import maybe_signature
from celery.exceptions import BackendGetMetaError, Ignore, InvalidTaskError, Reject, Retry
from celery.result import AsyncResult
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr
from celery.worker.state import successful_requests
from kombu.exceptions import EncodeError, OperationalError
from kombu.utils.encoding import safe_repr

from taskapp.broker.message_format import SENT_AT_HEADER, SIGNATURE_HEADER
from taskapp.broker.settlement import collecting
from taskapp.errors.tasks import ResultTooLarge
from taskapp.results.size import check_returned, fitting
from taskapp.worker.coroutines import Stopped, run_to_end
from taskapp.worker.failures import as_failure
from taskapp.worker.progress import note_retry
from taskapp.worker.task import Task

# The stubs lack these.
_task_stack: Any = _state._task_stack  # type: ignore[attr-defined]
_signal_internal_error: Any = stock_trace._signal_internal_error  # type: ignore[attr-defined]
is_result_ignored: Any = stock_task.get_actual_ignore_result  # type: ignore[attr-defined]
_signature: Any = maybe_signature
_AsyncResult: Any = AsyncResult

logger = get_logger("celery.app.trace")

Outcome = tuple[int, Any, float | None]
"""1 and an ``ExceptionInfo``, or 0 and the text of what was returned; seconds it took."""

CHEAP = (int, float, bool, type(None))
KNOWN_HEADERS = frozenset({
    *vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression", SENT_AT_HEADER, SIGNATURE_HEADER,
})  # fmt: skip


class Awaiting(Protocol):
    """What a run of a coroutine asks its pool."""

    is_stopped: bool
    """Whether a cancellation comes from the pool, which reports the run's end itself."""

    def awaitable(self, coroutine: Any) -> Any:
        """Return what to await."""


class Request(Context):
    """What ``self.request`` is: the message's headers themselves, not a copy; there may be 100,000 at a time."""

    __slots__ = ("_given",)

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = len(given)  # what the run adds comes behind
        self.__dict__ = given
        limits = given.get("timelimit")
        if isinstance(limits, list | tuple) and len(limits) >= 2:
            self.time_limit, self.soft_time_limit = limits[0], limits[1]

    def as_given(self) -> dict[str, Any]:
        """Return what the message said, without what the run added."""
        return dict(islice(tuple(self.__dict__.items()), self._given))

    @property
    def headers(self) -> dict[str, Any] | None:  # an attribute in Celery
        """Headers that are not Celery's own, or ``None``."""
        known = self.__dict__
        if known.get("headers") is None:
            known["headers"] = {
                key: value for key, value in self.as_given().items() if key not in KNOWN_HEADERS
            } or None
        return known["headers"]  # type: ignore[no-any-return]  # whatever was given

    @headers.setter
    def headers(self, value: Any) -> None:
        self.__dict__["headers"] = value


class Runner:
    """Runs the tasks of one type in one process."""

    def __init__(self, task: Any, app: Any, hostname: str) -> None:
        self.task = task
        self.app = app
        self.hostname = hostname
        self._loader = app.loader
        # Celery asks for a custom ``__call__`` in a way that finds its own protection of it, and goes two calls round.
        has_own_call = type(task).__call__ not in (Task.__call__, stock_task.Task.__call__)
        self.call: Callable[..., Any] = task if has_own_call else task.run
        self._before_start = task.before_start if task_has_custom(task, "before_start") else None
        self._on_success = task.on_success if task_has_custom(task, "on_success") else None
        self._after_return = task.after_return if task_has_custom(task, "after_return") else None
        self._inherits_priority = app.conf.task_inherit_parent_priority
        self._tracks_started = bool(task.track_started)
        # One for all threads if it says so; else each thread has its own.
        self._shared_backend = app.backend if getattr(app.backend, "thread_safe", False) else None
        self._started = {"pid": os.getpid(), "hostname": hostname}
        self.deduplicates = bool(
            (app.conf.task_acks_late or task.acks_late)
            and app.conf.worker_deduplicate_successful_tasks
            and app.backend.persistent
        )

    @property
    def backend(self) -> Any:
        """The result backend of the task, for this thread."""
        own = self.task._backend  # of a task type that has one to itself
        return own if own is not None else self._shared_backend or self.task.backend

    # --- drivers ----------------------------------------------------------------------------------

    def run(self, task_id: str, args: Any, kwargs: Any, given: dict[str, Any]) -> Outcome:
        """Run one task here and now; a coroutine that comes back is run to its end.

        Raises:
            celery.exceptions.Reject: A hook asked for it after the run.
        """
        steps = self._steps(task_id, args, kwargs, given)
        try:
            next(steps)
            try:
                retval = self.call(*args, **kwargs)
                if type(retval) is CoroutineType:
                    retval = run_to_end(retval)
            except BaseException as error:  # noqa: BLE001 - what it means is decided in one place
                steps.throw(error)
            else:
                steps.send(retval)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        raise AssertionError("a run has one end")

    async def run_async(self, task_id: str, args: Any, kwargs: Any, given: dict[str, Any], job: Awaiting) -> Outcome:
        """Run one task whose function returns a coroutine.

        Raises:
            Stopped: It was stopped from outside, by who reports it.
        """
        steps = self._steps(task_id, args, kwargs, given)
        try:
            next(steps)
            try:
                retval = await job.awaitable(self.call(*args, **kwargs))
            except CancelledError as cancelled:
                steps.throw(Stopped() if job.is_stopped else cancelled)
            except BaseException as error:  # noqa: BLE001 - the same
                steps.throw(error)
            else:
                steps.send(retval)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        raise AssertionError("a run has one end")

    # --- one run ------------------------------------------------------------------------------------

    def _steps(self, task_id: str, args: Any, kwargs: Any, given: dict[str, Any]) -> Generator[None, Any, Outcome]:
        """Go through one run; the driver calls the function where this yields."""
        started_at = monotonic()
        request: Request | None = None
        try:
            request = self.request(args, kwargs, given)
            if self.deduplicates and self._has_succeeded(request):
                return 0, None, None
            _task_stack.push(self.task)
            self.task.request_stack.push(request)
            state = retval = None
            try:
                self._begin(request)
                try:
                    if self._before_start is not None:
                        self._before_start(request.id, args, kwargs)
                    retval = yield
                except (GeneratorExit, Stopped):
                    raise
                except BaseException as error:  # noqa: BLE001 - told apart in _failed
                    state, retval, outcome = self._failed(request, error)
                else:
                    state = states.SUCCESS  # also if what follows fails
                    state, retval, outcome = self._succeeded(request, retval, started_at)
                if self._after_return is not None and state not in IGNORE_STATES:
                    self._call_hook("after_return", request, state, retval, request.id, args, kwargs, None)
            finally:
                self._end(request, state, retval)
        except (MemoryError, Reject):
            raise
        except Exception as error:  # noqa: BLE001 - outside the task's own code: a hook, or a defect
            seen_by_signal = given if request is None else request.as_given()
            _signal_internal_error(self.task, task_id, args, kwargs, seen_by_signal, error)
            seen = report_internal_error(self.task, error)
            if request is not None:
                self.report(request, error, states.FAILURE)
            return 1, seen, None
        return outcome

    def request(self, args: Any, kwargs: Any, given: dict[str, Any]) -> Request:
        """Return what ``self.request`` is in a run of the message with the headers ``given``."""
        if not isinstance(kwargs, Mapping):
            raise InvalidTaskError("Task keyword arguments is not a mapping")
        request = Request(given)
        request.args, request.kwargs, request.called_directly = args, kwargs, False
        return request

    def _begin(self, request: Request) -> None:
        task, args, kwargs = self.task, request.args, request.kwargs
        if signals.task_prerun.receivers:
            signals.task_prerun.send(sender=task, task_id=request.id, task=task, args=args, kwargs=kwargs)
        self._loader.on_task_init(request.id, task)
        if self._tracks_started and not is_result_ignored(task, request):
            self.backend.store_result(request.id, self._started, states.STARTED, request=request)

    def _end(self, request: Request, state: str | None, retval: Any) -> None:
        task = self.task
        try:
            if signals.task_postrun.receivers:
                signals.task_postrun.send(
                    sender=task, task_id=request.id, task=task, args=request.args, kwargs=request.kwargs,
                    retval=retval, state=state,
                )  # fmt: skip
        finally:
            _task_stack.pop()
            task.request_stack.pop()
            try:
                self.backend.process_cleanup()
                self._loader.on_process_cleanup()
            except Exception as error:
                logger.exception("Process cleanup failed: %r", error)

    # --- what came of it ----------------------------------------------------------------------------

    def _succeeded(self, request: Request, retval: Any, started_at: float) -> tuple[str, Any, Outcome]:
        task, has_sent, is_ignored = self.task, False, is_result_ignored(self.task, request)
        try:
            if type(retval) not in CHEAP:
                is_sent_on = bool(request.callbacks or request.chain)
                check_returned(self.backend, retval, is_sent_on=is_sent_on, is_ignored=is_ignored)
            # Before the result is stored, so that it names its children.
            if request.callbacks or request.chain:
                self._send_follow_ups(request, retval)
            has_sent = True
            self.backend.mark_as_done(request.id, retval, request, not is_ignored)
        except (EncodeError, OperationalError, ResultTooLarge) as error:
            if has_sent and isinstance(error, OperationalError):
                raise
            return self.report(request, error, states.FAILURE)
        text = repr(retval) if type(retval) in CHEAP else saferepr(retval, task.resultrepr_maxsize)
        seconds = monotonic() - started_at
        if self._on_success is not None:
            self._call_hook("on_success", request, retval, request.id, request.args, request.kwargs)
        if signals.task_success.receivers:
            signals.task_success.send(sender=task, result=retval, runtime=seconds)
        if logger.isEnabledFor(logging.INFO):
            self._log_success(request, text, seconds)
        return states.SUCCESS, retval, (0, text, seconds)

    def _failed(self, request: Request, error: BaseException) -> tuple[str, Any, Outcome]:
        if isinstance(error, Reject | Ignore):
            state = REJECTED if isinstance(error, Reject) else IGNORED
            info, seen = TraceInfo(state, error), ExceptionInfo(internal=True)
            info.handle_reject(self.task, request)
            traceback_clear(error)
            return state, error, (1, seen, None)
        if isinstance(error, Retry):
            if error.exc is not None:
                error.exc = as_failure(error.exc)  # type: ignore[assignment]  # an Exception it stays
            note_retry(request, error.exc, self.hostname)
            return self.report(request, error, states.RETRY)
        return self.report(request, as_failure(error), states.FAILURE)

    def report(self, request: Request, error: BaseException, state: str) -> tuple[str, Any, Outcome]:
        """Report that a run ended as ``state`` says, a failure or a retry; return that, the error and the outcome."""
        if state == states.FAILURE:
            # What was collected for a success; Celery's own backends do not see to it.
            with collecting(drop=True):
                pass
        error = fitting(self.backend, error)
        info = TraceInfo(state, error)
        seen = info.handle_error_state(self.task, request, call_errbacks=state == states.FAILURE)
        traceback_clear(error)
        return state, error, (1, seen, None)

    def _call_hook(self, name: str, request: Request, *args: Any) -> None:
        """Call a hook after the outcome was stored: what it raises changes that no more."""
        try:
            getattr(self.task, name)(*args)
        except (Reject, MemoryError):
            raise
        except Exception as error:
            logger.exception("Task %s[%s] %s handler raised: %r", self._name(request), request.id, name, error)
            traceback_clear(error)

    def _send_follow_ups(self, request: Request, retval: Any) -> None:
        """Send the links, then the next step of the chain."""
        callbacks = [_signature(callback, app=self.app) for callback in request.callbacks or ()]
        groups = [callback for callback in callbacks if isinstance(callback, group)]
        single = [callback for callback in callbacks if not isinstance(callback, group)]
        if len(callbacks) > 1 and single:
            # One trail for all of them.
            single = [group(single, app=self.app)]
        for callback in (*groups, *single):
            self._send(callback, request, retval)
        if request.chain:
            self._send(_signature(request.chain[-1], app=self.app), request, retval, chain=request.chain[:-1])

    def _send(self, signature: Any, request: Request, retval: Any, **options: Any) -> None:
        delivery: Any = request.delivery_info
        priority = delivery.get("priority") if self._inherits_priority else None
        self.app.amqp._retry_publish(
            signature.apply_async, (retval,), parent_id=request.id, root_id=request.root_id or request.id,
            priority=priority, **options,
        )  # fmt: skip

    def _has_succeeded(self, request: Request) -> bool:
        """Say whether an earlier run of a redelivered task left a SUCCESS; send the follow-ups it did not get to."""
        if not (request.delivery_info and request.delivery_info.get("redelivered")):
            return False
        if request.id in successful_requests:
            return True
        result = _AsyncResult(request.id, app=self.app)
        try:
            meta = result._get_task_meta()
        except BackendGetMetaError:
            return False
        if meta["status"] != states.SUCCESS:
            return False
        context = {"id": request.id, "name": self._name(request), "description": "Task already completed successfully."}
        logger.info(LOG_IGNORED, context, extra={"data": context})
        if not meta.get("children"):
            self._send_late(request, meta.get("result"))
        successful_requests.add(request.id)
        return True

    def _send_late(self, request: Request, retval: Any) -> None:
        """Send the follow-ups of an earlier run; as it was no failure, neither is what stands in the way now."""
        try:
            self._send_follow_ups(request, retval)
        except MemoryError:
            raise
        except Exception as error:
            logger.exception("Failed to dispatch chain/callbacks for deduplicated task %s", request.id)
            raise Reject(error, requeue=True) from error

    def _log_success(self, request: Request, text: str, seconds: float) -> None:
        context = {
            "id": request.id, "name": self._name(request), "return_value": text, "runtime": seconds,
            "args": request.get("argsrepr") or safe_repr(request.args),
            "kwargs": request.get("kwargsrepr") or safe_repr(request.kwargs),
        }  # fmt: skip
        logger.info(LOG_SUCCESS, context, extra={"data": context})

    def _name(self, request: Request) -> str:
        return str(get_task_name(request, self.task.name))
