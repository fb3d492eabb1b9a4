"""Celery's tracer, split where the task's own function runs, so that a driver can call or await it.

    begin ──► the function ──► succeed ──► end
                    └──► fail (failure, retry, rejected, ignored) ──┘

``celery.app.trace.build_tracer`` does the same in one closure of 320 lines that cannot await a
coroutine. This module keeps its guarantees: the order of hooks, signals, follow-ups and results, and the
meaning of each error. One test runs both on the same tasks; another fails when Celery's code changes.
"""

from __future__ import annotations

import os
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from types import CoroutineType
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import signals, states
from celery.app import task as stock_task
from celery.app.trace import (
    IGNORE_STATES,
    IGNORED,
    LOG_IGNORED,
    REJECTED,
    TraceInfo,
    get_task_name,
    report_internal_error,
    traceback_clear,
)
from celery.backends.base import Backend
from celery.exceptions import BackendGetMetaError, Ignore, InvalidTaskError, Reject, Retry
from celery.loaders.base import BaseLoader
from celery.result import AsyncResult
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr
from celery.worker.state import successful_requests
from kombu.exceptions import EncodeError, OperationalError

from taskapp.app.progress import note_retry
from taskapp.app.rate_pauses import pause_after
from taskapp.app.task import Task
from taskapp.celery_internals import current_tasks, own_backend, read_meta, signal_internal_error
from taskapp.engine.settlement import collecting
from taskapp.errors.tasks import ResultTooLarge, UnreadableResult
from taskapp.errors.wording import shown as shown_text
from taskapp.errors.wording import sound
from taskapp.execution import forked
from taskapp.execution.coroutines import Awaiting, Closed, Stopped, run_to_end
from taskapp.execution.failures import as_error, as_failure, ends_the_run
from taskapp.execution.watched_calls import is_watched, run_shown, shown
from taskapp.results.size import check_returned, fitting
from taskapp.worker.run.circuits import breaker_of, note_end
from taskapp.worker.run.follow_ups import send_follow_ups
from taskapp.worker.run.reports import Reports, Steps, drive, is_result_ignored
from taskapp.worker.run.request_context import RunContext
from taskapp.worker.run.retry_budget import budget_of, counts_for, error_instead_of
from taskapp.worker.run.storing import is_of_django, storing

# Missing in the stubs.
_AsyncResult: Any = AsyncResult

logger = get_logger("celery.app.trace")

Outcome = tuple[int, Any, float | None]
"""``(failed, value, seconds)``: 1 with an ``ExceptionInfo``, or 0 with the return value as text."""

CHEAP = (int, float, bool, type(None))
STOCK_HOOKS = frozenset({BaseLoader.on_task_init, BaseLoader.on_process_cleanup, Backend.process_cleanup})
"""Default hooks, which do nothing and are not called."""


def _is_stock(hook: Any) -> bool:
    return getattr(hook, "__func__", None) in STOCK_HOOKS


class Runner:
    """Runs the tasks of a type in this process."""

    def __init__(self, task: Any, app: Any, hostname: str) -> None:
        self.task, self.app, self.hostname = task, app, hostname
        self._loader = app.loader
        # Celery's own check for a custom ``__call__`` matches its own wrapper and would add two calls.
        has_own_call = type(task).__call__ not in (Task.__call__, stock_task.Task.__call__)
        self.call: Callable[..., Any] = task if has_own_call else task.run
        self._is_watched = is_watched(task, Task.__call__)
        self._reports = Reports(task)
        self._has_before_start = self._reports.has("before_start")
        self._has_on_success = self._reports.has("on_success")
        self._has_after_return = self._reports.has("after_return")
        self._breaker = breaker_of(task)
        self._budget = budget_of(task)
        self.budgeted = counts_for(task)
        """How each run counts for the retry budget of the type; ``None``: it does not."""
        self._inherits_priority = app.conf.task_inherit_parent_priority
        self._tracks_started = bool(task.track_started)
        # Shared by all threads if it is thread-safe; otherwise each thread has its own.
        self._shared_backend = app.backend if getattr(app.backend, "thread_safe", False) else None
        self._stores_here = not is_of_django(self.backend.__class__)
        self._has_task_init = not _is_stock(app.loader.on_task_init)
        self._has_cleanup = not (_is_stock(app.loader.on_process_cleanup) and _is_stock(self.backend.process_cleanup))
        self._started = {"pid": os.getpid(), "hostname": hostname}
        self.deduplicates = bool(
            (app.conf.task_acks_late or task.acks_late)
            and app.conf.worker_deduplicate_successful_tasks
            and app.backend.persistent
        )

    @property
    def backend(self) -> Any:
        """The result backend of the task, for this thread."""
        own = own_backend(self.task)  # set if the task type has a backend of its own
        return own if own is not None else self._shared_backend or self.task.backend

    # --- drivers ----------------------------------------------------------------------------------

    def run(self, task_id: str, args: Any, kwargs: Any, given: dict[str, Any]) -> Outcome:
        """Run one task on this thread; run a coroutine that it returns to its end.

        Raises:
            celery.exceptions.Reject: A hook raised it after the run.
        """
        steps = self._steps(task_id, args, kwargs, given)
        forks = forked.forks
        try:
            step = next(steps)
            while True:
                try:
                    value = self.call(*args, **kwargs) if step is None else step
                    if type(value) is CoroutineType:
                        is_shown = self._is_watched and step is None
                        value = run_shown(self.task, value, args, kwargs) if is_shown else run_to_end(value)
                except BaseException as error:  # noqa: BLE001 - handled by the steps
                    if forked.forks != forks:
                        forked.leave(error)
                    raised = as_failure(error) if step is None else as_error(error)
                else:
                    if forked.forks != forks:
                        forked.leave()
                    step = steps.send(value)
                    continue
                step = steps.throw(raised)  # outside the handler, so that errors in there are not chained to the task's
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def run_async(
        self, task_id: str, args: Any, kwargs: Any, given: dict[str, Any], job: Awaiting,
        closed: tuple[Steps, BaseException] | None = None,
    ) -> Outcome:  # fmt: skip
        """Run one task whose function returns a coroutine, or the rest of a run that was ``closed``.

        Raises:
            Stopped: The run was stopped from outside, by code that reports its end.
            Closed: The run continues in another coroutine.
        """
        steps = closed[0] if closed else self._steps(task_id, args, kwargs, given)
        forks = forked.forks
        try:
            step = steps.throw(closed[1]) if closed else next(steps)
            while True:
                try:
                    value = await (job.awaitable(self.call(*args, **kwargs)) if step is None else step)
                except BaseException as error:
                    if forked.forks != forks:
                        forked.leave(error)
                    if issubclass(type(error), GeneratorExit):
                        if not job.is_current():
                            raise  # this coroutine has been discarded
                        rest = (steps, as_failure(error))
                        raise Closed(partial(self.run_async, task_id, args, kwargs, given, job, rest)) from error
                    raised = self._raised(error, job, args, kwargs) if step is None else as_error(error)
                else:
                    if forked.forks != forks:
                        forked.leave()
                    step = steps.send(value)
                    continue
                step = steps.throw(raised)  # outside the handler, as in ``run``
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _raised(self, error: BaseException, job: Awaiting, args: Any, kwargs: Any) -> BaseException:
        """Return the error to report for ``error``, raised by the task's own coroutine."""
        error = sound(error)
        if isinstance(error, CancelledError) and job.is_stopped:
            return Stopped()
        return as_failure(shown(self.task, error, args, kwargs) if self._is_watched else error)

    # --- one run ------------------------------------------------------------------------------------

    def _steps(self, task_id: str, args: Any, kwargs: Any, given: dict[str, Any]) -> Steps:
        """Yield the steps of one run to its driver, see ``Steps``; return its outcome."""
        started_at = monotonic()
        request: RunContext | None = None
        try:
            request = self.request(args, kwargs, given)
            if self.deduplicates and self._has_succeeded(request):
                return 0, None, None
            return (yield from self._run(request, task_id, started_at))
        except (MemoryError, Reject, GeneratorExit):
            raise
        except BaseException as error:
            if ends_the_run(error):
                raise
            # Outside the task's own code: a hook, or a defect.
            failure = as_error(error)
            seen_by_signal = given if request is None else request.as_given()
            signal_internal_error(self.task, task_id, args, kwargs, seen_by_signal, failure)
            seen = report_internal_error(self.task, failure)
            if request is not None:
                yield from self._report(request, failure, states.FAILURE)
            return 1, seen, None

    def _run(self, request: RunContext, task_id: str, started_at: float) -> Steps:
        current_tasks.push(self.task)
        self.task.request_stack.push(request)
        args, kwargs = request.args, request.kwargs
        state = retval = None
        try:
            self._begin(request)
            if self._tracks_started and not is_result_ignored(self.task, request):
                started = (request.id, self._started, states.STARTED)
                if self._stores_here:
                    self.backend.store_result(*started, request=request)
                else:
                    yield from storing(self.backend, self.backend.store_result, *started, request=request)
            try:
                if self._has_before_start:
                    yield from self._reports.hook("before_start", request.id, args, kwargs)
                retval = yield None
            except GeneratorExit:
                raise  # the run is discarded; a task's own ``GeneratorExit`` arrives as another type
            except BaseException as error:
                if ends_the_run(error):
                    raise
                request.id = task_id  # in case the task has overwritten it
                state, retval, outcome = yield from self._failed(request, error)
            else:
                request.id = task_id
                state = states.SUCCESS  # even if the next line raises
                state, retval, outcome = yield from self._succeeded(request, retval, started_at)
            if self._has_after_return and state not in IGNORE_STATES:
                hook = self._reports.late_hook
                yield from hook("after_return", request, state, retval, request.id, args, kwargs, None)
        finally:
            self._end(request, state, retval)
        return outcome

    def request(self, args: Any, kwargs: Any, given: dict[str, Any]) -> RunContext:
        """Return ``self.request`` for a run of the message with the headers ``given``."""
        if type(kwargs) is not dict and not isinstance(kwargs, Mapping):
            raise InvalidTaskError("Task keyword arguments is not a mapping")
        request = RunContext(given)
        request.args, request.kwargs, request.called_directly = args, kwargs, False
        return request

    def _begin(self, request: RunContext) -> None:
        task, args, kwargs = self.task, request.args, request.kwargs
        if signals.task_prerun.receivers:
            signals.task_prerun.send(sender=task, task_id=request.id, task=task, args=args, kwargs=kwargs)
        if self._has_task_init:
            self._loader.on_task_init(request.id, task)

    def _end(self, request: RunContext, state: str | None, retval: Any) -> None:
        task = self.task
        try:
            if signals.task_postrun.receivers:
                signals.task_postrun.send(
                    sender=task, task_id=request.id, task=task, args=request.args, kwargs=request.kwargs,
                    retval=retval, state=state,
                )  # fmt: skip
        finally:
            current_tasks.pop()
            task.request_stack.pop()
            if self._has_cleanup:
                self._clean_up()

    def _clean_up(self) -> None:
        try:
            self.backend.process_cleanup()
            self._loader.on_process_cleanup()
        except Exception as error:
            logger.exception("Process cleanup failed: %s", shown_text(error))

    # --- outcome ------------------------------------------------------------------------------------

    def _succeeded(self, request: RunContext, retval: Any, started_at: float) -> Steps:
        task, has_sent, is_ignored = self.task, False, is_result_ignored(self.task, request)
        try:
            if type(retval) not in CHEAP:
                is_sent_on = bool(request.callbacks or request.chain)
                check_returned(self.backend, retval, is_sent_on=is_sent_on, is_ignored=is_ignored)
            # Before the result is stored, so that the result lists its children.
            if request.callbacks or request.chain:
                send_follow_ups(self.app, request, retval, inherits_priority=self._inherits_priority)
            has_sent = True
            if self._stores_here:
                self.backend.mark_as_done(request.id, retval, request, not is_ignored)
            else:
                yield from storing(self.backend, self.backend.mark_as_done, request.id, retval, request, not is_ignored)
        except (EncodeError, OperationalError, ResultTooLarge) as error:
            if has_sent and isinstance(error, OperationalError):
                raise
            return (yield from self._report(request, error, states.FAILURE))
        text = repr(retval) if type(retval) in CHEAP else saferepr(retval, task.resultrepr_maxsize)
        seconds = monotonic() - started_at
        if self._has_on_success:
            yield from self._reports.late_hook("on_success", request, retval, request.id, request.args, request.kwargs)
        if signals.task_success.receivers:
            signals.task_success.send(sender=task, result=retval, runtime=seconds)
        if self._breaker is not None:
            note_end(self.task, self._breaker, None)
        self._reports.log_success(request, text, seconds)
        return states.SUCCESS, retval, (0, text, seconds)

    def _failed(self, request: RunContext, error: BaseException) -> Steps:
        if isinstance(error, Reject | Ignore):
            state = REJECTED if isinstance(error, Reject) else IGNORED
            info, seen = TraceInfo(state, error), ExceptionInfo(internal=True)
            info.handle_reject(self.task, request)
            traceback_clear(error)
            return state, error, (1, seen, None)
        pause_after(self.task, error)
        if self._breaker is not None:
            note_end(self.task, self._breaker, error)
        if isinstance(error, Retry):
            if error.exc is not None:
                error.exc = as_failure(error.exc)  # type: ignore[assignment]  # still an Exception
            if self._budget is not None:
                failure = yield from error_instead_of(self.task, self._budget, request, error)
                if failure is not None:
                    return (yield from self._report(request, failure, states.FAILURE))
            note_retry(request, error.exc, self.hostname)
            return (yield from self._report(request, error, states.RETRY))
        return (yield from self._report(request, error, states.FAILURE))

    def report(self, request: RunContext, error: BaseException, state: str) -> tuple[str, Any, Outcome]:
        """Report a run that ended in ``state``, a failure or a retry; return the state, the error and the outcome."""
        return drive(self._report(request, error, state))  # type: ignore[no-any-return]  # returned by ``_report``

    def _report(self, request: RunContext, error: BaseException, state: str) -> Steps:
        if state == states.FAILURE:
            # Drop what was collected for a success, which Celery's own backends do not do.
            with collecting(drop=True):
                pass
        error = fitting(self.backend, error)
        seen = yield from self._reports.error(request, error, state)
        traceback_clear(error)
        return state, error, (1, seen, None)

    def _has_succeeded(self, request: RunContext) -> bool:
        """Return whether an earlier run of a redelivered task succeeded; send the follow-ups it did not send."""
        if not (request.delivery_info and request.delivery_info.get("redelivered")):
            return False
        if request.id in successful_requests:
            return True
        result = _AsyncResult(request.id, app=self.app)
        try:
            meta = read_meta(result)
        except (BackendGetMetaError, UnreadableResult):
            return False
        if meta["status"] != states.SUCCESS:
            return False
        name = str(get_task_name(request, self.task.name))
        context = {"id": request.id, "name": name, "description": "Task already completed successfully."}
        logger.info(LOG_IGNORED, context, extra={"data": context})
        if not meta.get("children"):
            self._send_late(request, meta.get("result"))
        successful_requests.add(request.id)
        return True

    def _send_late(self, request: RunContext, retval: Any) -> None:
        """Send the follow-ups of an earlier successful run; on an error, requeue the message instead of failing it."""
        try:
            send_follow_ups(self.app, request, retval, inherits_priority=self._inherits_priority)
        except MemoryError:
            raise
        except Exception as error:
            logger.exception("Failed to dispatch chain/callbacks for deduplicated task %s", request.id)
            raise Reject(error, requeue=True) from error
