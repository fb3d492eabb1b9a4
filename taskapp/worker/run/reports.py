"""Reports the end of a run: stores a failure, calls the task class's hooks, sends signals and logs.

Unlike Celery's ``TraceInfo``, this awaits hooks that are coroutine functions, and survives hooks that raise
``SystemExit``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import signals, states
from celery.app import task as stock_task
from celery.app import trace
from celery.app.trace import LOG_RETRY, TraceInfo, get_task_name, task_has_custom, traceback_clear
from celery.exceptions import Reject
from celery.utils.log import get_logger
from celery.utils.serialization import get_pickleable_etype, get_pickleable_exception
from kombu.utils.encoding import safe_repr

from taskapp.celery_internals import log_failure
from taskapp.errors import TaskExited
from taskapp.errors.frames import begin_in_task
from taskapp.errors.wording import shown, text_of
from taskapp.execution import forked
from taskapp.execution.coroutines import run_to_end
from taskapp.execution.failures import as_error
from taskapp.logs.task_lines import task_lines
from taskapp.transport.attempts_header import attempts_in
from taskapp.worker.run.storing import storing

# Missing in the stubs.
is_result_ignored: Any = stock_task.get_actual_ignore_result  # type: ignore[attr-defined]
_exception: Any = get_pickleable_exception
_etype: Any = get_pickleable_etype
_TraceInfo: Any = TraceInfo

logger = get_logger("celery.app.trace")

HOOKS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")


Steps = Generator[Coroutine[Any, Any, Any] | None, Any, Any]
"""Yields a coroutine, or ``None`` for the task's own function; the driver runs it and sends back what it returns, or
throws what it raises."""


def drive(steps: Generator[Any, Any, Any]) -> Any:
    """Run the steps of a report outside a run; return their return value."""
    try:
        step = next(steps)
        while True:
            try:
                value, raised = run_to_end(step), None
            except BaseException as error:  # noqa: BLE001 - thrown back into the steps
                raised = as_error(error)
            step = steps.send(value) if raised is None else steps.throw(raised)
    except StopIteration as end:
        return end.value


class Reports:
    """Reports how runs of a task type end."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self._hooks: dict[str, Callable[..., Any]] = {
            name: getattr(task, name) for name in HOOKS if task_has_custom(task, name)
        }

    def has(self, name: str) -> bool:
        """Return whether the task type defines the hook ``name``."""
        return name in self._hooks

    def hook(self, name: str, *args: Any) -> Steps:
        """Call a hook, and await it if it is a coroutine function.

        Raises:
            Exception: The error the hook raised.
            TaskExited: The hook raised an exception that would have ended more than the hook.
        """
        try:
            returned = forked.confined(self._hooks[name], *args)
        except BaseException as error:
            if (kept := as_error(error)) is error:
                raise
            raise kept from kept.__cause__  # not from ``error``, which may be unreadable
        if type(returned) is CoroutineType:
            yield returned

    def late_hook(self, name: str, request: Any, *args: Any) -> Steps:
        """Call a hook, if defined, after the outcome was stored; an error of the hook does not change the outcome.

        In Celery, an error in ``on_failure`` replaces the task's own, and an error in ``on_retry`` turns a retry into a
        failure.
        """
        if name not in self._hooks:
            return
        try:
            yield from self.hook(name, *args)
        except Reject:
            raise
        except Exception as error:
            reason = error.args[0] if isinstance(error, TaskExited) else shown(error)
            logger.error(
                "Task %s[%s] %s handler raised: %s", self._name(request), request.id, name, reason, exc_info=error
            )  # fmt: skip
            traceback_clear(error)

    # --- failures and retries -------------------------------------------------------------------------

    def error(self, request: Any, error: BaseException, state: str) -> Steps:
        """Store and report that the run failed or is retried; return the ``ExceptionInfo`` for the pool."""
        task = self._task
        stores = not is_result_ignored(task, request) or task.store_errors_even_if_ignored
        report = self._retried if state == states.RETRY else self._failed
        return (yield from report(request, error, stores=stores))

    def _retried(self, request: Any, reason: Any, *, stores: bool) -> Steps:
        task = self._task
        begin_in_task(reason)
        einfo = ExceptionInfo((type(reason), reason, reason.__traceback__))
        if stores:
            backend = task.backend
            yield from storing(
                backend, backend.mark_as_retry, request.id, reason.exc, einfo.traceback, request=request
            )  # fmt: skip
        hook = self.late_hook
        yield from hook("on_retry", request, reason.exc, request.id, request.args, request.kwargs, einfo)
        signals.task_retry.send(sender=task, request=request, reason=reason, einfo=einfo)
        context = {"id": request.id, "name": self._name(request), "exc": text_of(reason)}
        logger.info(LOG_RETRY, context, extra={"data": context})
        traceback_clear(einfo.exception)
        return einfo

    def _failed(self, request: Any, error: BaseException, *, stores: bool) -> Steps:
        task = self._task
        begin_in_task(error)
        kept = _exception(error)
        if kept.__traceback__ is None:
            kept = kept.with_traceback(error.__traceback__)
        einfo = ExceptionInfo((_etype(type(error)), kept, kept.__traceback__))
        backend = task.backend
        yield from storing(
            backend, backend.mark_as_failure, request.id, kept, einfo.traceback, request=request, store_result=stores,
            call_errbacks=True,
        )  # fmt: skip
        yield from self.late_hook("on_failure", request, kept, request.id, request.args, request.kwargs, einfo)
        signals.task_failure.send(
            sender=task, task_id=request.id, exception=kept, args=request.args, kwargs=request.kwargs,
            traceback=kept.__traceback__, einfo=einfo,
        )  # fmt: skip
        log_failure(_TraceInfo(states.FAILURE, error), task, request, einfo)
        if attempts := attempts_in(request):
            said = "; ".join(map(str, attempts))
            # Not as an error: of those, each failed task has one.
            logger.warning("Task %s[%s] failed after %s", self._name(request), request.id, said)
        traceback_clear(kept)
        return einfo

    # --- successes ----------------------------------------------------------------------------------

    def log_success(self, request: Any, text: str, seconds: float) -> None:
        """Log that a run succeeded."""
        if not logger.isEnabledFor(logging.INFO):
            return
        context = {
            "id": request.id, "name": self._name(request), "return_value": text, "runtime": seconds,
            "args": request.get("argsrepr") or safe_repr(request.args),
            "kwargs": request.get("kwargsrepr") or safe_repr(request.kwargs),
        }  # fmt: skip
        delivery = request.delivery_info or {}
        fields = request.id, self._task.name, delivery.get("routing_key"), request.retries + 1
        # Only a claim that is settled after its run has its lines written first.
        may_wait = self._task.acks_late and "lease" in (request.properties or ())
        task_lines.succeeded(logger, trace.LOG_SUCCESS, context, fields, may_wait=may_wait)

    def _name(self, request: Any) -> str:
        return str(get_task_name(request, self._task.name))
