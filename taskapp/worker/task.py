"""The base class of every task type of our app: typed payloads and which errors are retried."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from inspect import iscoroutinefunction
from itertools import islice
from typing import Any

import celery
from celery.canvas import Signature
from celery.utils import uuid

from taskapp.broker import bulk
from taskapp.broker.delivery import PUSHED_AT_ONCE
from taskapp.broker.settlement import collecting, settling
from taskapp.errors import InvalidPayload, PermanentError, SubmitInterrupted, SubmitOutcomeUnknown, TaskappError
from taskapp.worker.body import checked
from taskapp.worker.current import ContextStack, follow_contexts
from taskapp.worker.payload import Payload

Call = Mapping[str, Any] | list[Any] | tuple[Any, ...]
"""Arguments of one task."""

NEVER_RETRIED = (PermanentError, InvalidPayload)

follow_contexts()


class Task(celery.Task):  # type: ignore[type-arg]  # Celery's own class has no parameters
    """A Celery task whose annotated arguments are checked and whose permanent errors stay failures.

    Options beside Celery's own: ``typed=True`` checks plainly annotated arguments too.
    ``autoretry_for``, ``max_retries``, ``retry_backoff`` and ``retry_backoff_max`` mean what they
    mean in Celery; waits are drawn evenly from zero to the backoff (full jitter).
    """

    abstract = True
    cpu_bound = False
    """Run in a child process of the worker: for what holds the GIL, or must be killed by its hard time limit."""
    typed = False
    """Check plainly annotated arguments (``x: int``) as well as Pydantic models."""
    keeps_failures = True
    """Keep the message of a task that failed for good among the dead letters, to be looked at and replayed."""
    Request = "taskapp.worker.request:Request"
    Strategy = "taskapp.worker.strategy:Strategy"
    retry_jitter = True
    _is_method: bool
    _unchecked_run: Callable[..., Any]

    @classmethod
    def on_bound(cls, app: celery.Celery) -> None:  # noqa: ARG003 - the signature is Celery's
        """Put the check of arguments and the dump of a returned model around ``run``."""
        cls.request_stack = ContextStack()
        run = cls.__dict__.get("run")
        if run is None or "_unchecked_run" in cls.__dict__:
            return
        cls._is_method = not isinstance(run, staticmethod)
        cls._unchecked_run = staticmethod(getattr(run, "__func__", run))
        run = checked(cls, cls._unchecked_run)
        cls.run = run if cls._is_method else staticmethod(run)  # type: ignore[method-assign]
        if iscoroutinefunction(run):
            # Celery would put its own autoretry around it, which does not await.
            cls._orig_run = cls.run  # type: ignore[attr-defined]

    @classmethod
    @functools.cache
    def payload(cls) -> Payload:
        """Return what is checked of this type's arguments, read from its annotations once."""
        return Payload(cls.name, cls._unchecked_run, plain=cls.typed, bound=cls._is_method)

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Signature[Any]:
        """Create a signature, as Celery does; named arguments are checked here.

        Raises:
            InvalidPayload: A named argument does not fit.
        """
        if self.payload():
            kwargs = starargs[0] if starargs else starkwargs.get("kwargs")
            args, named = self.payload().named_to_json(args or (), kwargs or {})
            if starargs:
                starargs = (named, *starargs[1:])
            elif kwargs:
                starkwargs["kwargs"] = named
        return super().signature(args, *starargs, **starkwargs)

    subtask = signature

    def apply_async(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Submit, as Celery does; the arguments are checked first.

        Raises:
            InvalidPayload: An argument does not fit; nothing was queued.
        """
        # A follow-up of a finished task and a retry carry arguments nobody here can mend: those
        # are checked when they run, so that it is they that fail.
        comes_from_a_run = options.get("parent_id") is not None or options.get("retries")
        if self.payload() and not comes_from_a_run:
            args, kwargs = self.payload().to_json(args or (), kwargs or {})
        return super().apply_async(args, kwargs, *rest, **options)

    def submit_many(self, calls: Iterable[Call], **options: Any) -> list[Any]:
        """Submit one task for each of ``calls``, a thousand in one step; return their results in order.

        Args:
            calls: For each task its arguments: a list or tuple, or a dict of named ones. May be endless work in
                progress, such as a generator: a thousand are held at a time.
            options: As for ``apply_async``, for all of them.

        Raises:
            SubmitInterrupted: Something stood in the way; says what is queued, what is not, and of what nobody knows.
        """
        results: list[Any] = []
        remaining = iter(calls)
        while batch := list(islice(remaining, PUSHED_AT_ONCE)):
            self._submit_batch(batch, results, options)
        return results

    def _submit_batch(self, batch: list[Call], results: list[Any], options: dict[str, Any]) -> None:
        ids = [uuid() for _ in batch]
        begun: list[Any] = []
        held_back = False
        try:
            with bulk.collecting() as collected:
                for task_id, call in zip(ids, batch, strict=True):
                    begun.append(self._submit_call(call, task_id, options))
                    held_back = bool(collected.waiting)
        except TaskappError as error:
            # What was collected was dropped, or pushed whole; on another broker each went out by itself.
            queued = results if held_back or not begun else results + begun
            first = len(queued) - len(results)
            unknown = set(error.task_ids) if isinstance(error, SubmitOutcomeUnknown) else set()
            calls = dict(zip(ids[first:], batch[first:], strict=True))
            raise SubmitInterrupted(
                self.name, queued, {task_id: call for task_id, call in calls.items() if task_id in unknown},
                [call for task_id, call in calls.items() if task_id not in unknown], error,
            ) from error  # fmt: skip
        results.extend(begun)

    def _submit_call(self, call: Call, task_id: str, options: dict[str, Any]) -> Any:
        if isinstance(call, Mapping):
            return self.apply_async((), dict(call), task_id=task_id, **options)
        if isinstance(call, list | tuple):
            return self.apply_async(tuple(call), {}, task_id=task_id, **options)
        raise InvalidPayload(self.name, f"{call!r} is neither a list or tuple of arguments nor a dict of named ones")

    def retry(self, *args: Any, exc: Exception | None = None, countdown: float | None = None, **options: Any) -> Any:
        """Retry, as Celery does, unless ``exc`` is permanent; wait as long as ``exc`` asks for."""
        if isinstance(exc, NEVER_RETRIED):
            raise exc
        asked_seconds = getattr(exc, "retry_after_seconds", None)
        if asked_seconds is not None and options.get("eta") is None:
            countdown = max(countdown or 0, asked_seconds)
        with collecting(keep=True):
            return super().retry(*args, exc=exc, countdown=countdown, **options)  # type: ignore[misc]  # passed on

    def on_replace(self, sig: Signature[Any]) -> Any:
        """Send what replaces this task, in the step that finishes it."""
        with collecting(keep=True):
            return super().on_replace(sig)

    def apply(self, *args: Any, **options: Any) -> Any:
        """Run here and now, as Celery does; what follows is sent at once, also inside another task's run."""
        with settling(None):
            return super().apply(*args, **options)
