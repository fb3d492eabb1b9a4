"""Submits many tasks of one type in batches, and reports the outcome of each.

A batch ends at its maximum number of tasks, or as soon as their messages have enough bytes for one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from taskapp.client.limits.duplicates import raise_refused
from taskapp.client.protocol import new_id
from taskapp.client.submitter import Submitter
from taskapp.engine.batch import collecting, current
from taskapp.engine.producer import PUSHED_AT_ONCE, PUSHED_BYTES_AT_ONCE
from taskapp.errors import (
    DuplicateTask,
    InvalidPayload,
    PushError,
    SubmitInterrupted,
    SubmitOutcomeUnknown,
    TaskappError,
)

Call = Mapping[str, Any] | list[Any] | tuple[Any, ...]
"""Arguments of one task."""
Submit = Callable[[Any, Any, str], Any]
"""Submits one task with these arguments and this id; returns its result."""

PUT_TOGETHER_AT_ONCE = 200
"""Number of tasks that an event loop prepares before it runs other work: a few milliseconds."""


class _Batch:
    """A batch of tasks."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self.ids = [new_id() for _ in calls]
        self.begun: list[Any] = []
        self.goes_out_together = False
        """Whether the submitted tasks are not queued yet."""

    def begin(self, name: str, submit: Submit, *, together: Callable[[], bool]) -> None:
        """Submit tasks until there are enough bytes for one step; the rest is for the next batch."""
        for task_id, call in zip(self.ids, self.calls, strict=True):
            self.begun.append(submit(*_arguments(name, call), task_id))
            self.goes_out_together = together()
            if (bulk := current()) is not None and bulk.size >= PUSHED_BYTES_AT_ONCE:
                return

    @property
    def left(self) -> list[Call]:
        """Arguments of tasks that were not submitted."""
        return self.calls[len(self.begun) :]

    def refused(self, name: str, before: list[Any], error: DuplicateTask) -> SubmitInterrupted:
        """Return the error for this batch, all of which is queued except the tasks that ``error`` names."""
        outcomes = list(zip(self.ids, self.calls, self.begun, strict=False))
        queued = [result for task_id, _, result in outcomes if task_id not in error.existing]
        not_queued = [call for task_id, call, _ in outcomes if task_id in error.existing]
        return SubmitInterrupted(name, before + queued, {}, [*not_queued, *self.left], error)

    def stopped(self, name: str, before: list[Any], error: TaskappError) -> SubmitInterrupted:
        """Return the error for this batch, with the results ``before`` it."""
        unknown = set(error.task_ids) if isinstance(error, SubmitOutcomeUnknown) else set()
        queued = self._queued(error)
        calls = {task_id: call for task_id, call in zip(self.ids, self.calls, strict=True) if task_id not in queued}
        return SubmitInterrupted(
            name, before + list(queued.values()), {task_id: calls[task_id] for task_id in calls if task_id in unknown},
            [call for task_id, call in calls.items() if task_id not in unknown], error,
        )  # fmt: skip

    def _queued(self, error: TaskappError) -> dict[str, Any]:
        """Return the results of the tasks that are queued although ``error`` was raised, by id."""
        begun = dict(zip(self.ids, self.begun, strict=False))
        if not self.goes_out_together:
            return begun
        if not isinstance(error, PushError):
            return {}
        return {task_id: result for task_id, result in begun.items() if error.about((task_id,)) is None}


def submit_many(name: str, calls: Iterable[Call], submits: Callable[[], Submit]) -> list[Any]:
    """Submit a task for each of ``calls``, in steps of up to 1,000 tasks or 1 MiB; return their results.

    Args:
        name: Name of the task type.
        calls: Arguments of the tasks.
        submits: Called for each batch; returns a function that submits one task.

    Raises:
        SubmitInterrupted: A batch failed; the error lists the outcome of each task.
    """
    results: list[Any] = []
    batches = _Batches(calls, PUSHED_AT_ONCE)
    while batch := batches.next():
        try:
            with collecting() as bulk:
                batch.begin(name, submits(), together=lambda bulk=bulk: bool(bulk.waiting))  # type: ignore[misc]
            raise_refused(bulk)
        except DuplicateTask as error:
            raise batch.refused(name, results, error) from error
        except TaskappError as error:
            raise batch.stopped(name, results, error) from error
        results += batch.begun
        batches.put_back(batch.left)
    return results


async def asubmit_many(
    submitter: Submitter, name: str, calls: Iterable[Call], submits: Callable[[], Submit]
) -> list[Any]:
    """Like ``submit_many``, without blocking the event loop for long."""
    results: list[Any] = []
    together = submitter.goes_together
    batches = _Batches(calls, PUT_TOGETHER_AT_ONCE)
    while batch := batches.next():
        try:
            await submitter.awaiting(name, lambda batch=batch: batch.begin(name, submits(), together=together))  # type: ignore[misc]
        except DuplicateTask as error:
            raise batch.refused(name, results, error) from error
        except TaskappError as error:
            raise batch.stopped(name, results, error) from error
        results += batch.begun
        batches.put_back(batch.left)
    return results


class _Batches:
    """Splits calls into batches."""

    def __init__(self, calls: Iterable[Call], at_once: int) -> None:
        self._calls, self._at_once = iter(calls), at_once
        self._first: list[Call] = []

    def next(self) -> _Batch | None:
        """Return the next batch; ``None`` at the end."""
        calls = [*self._first, *islice(self._calls, self._at_once - len(self._first))]
        return _Batch(calls) if calls else None

    def put_back(self, calls: list[Call]) -> None:
        """Put ``calls`` in front of the remaining ones."""
        self._first = calls


def _arguments(name: str, call: Call) -> tuple[Any, Any]:
    if isinstance(call, list | tuple):
        return call, {}
    if isinstance(call, Mapping):
        return (), dict(call)
    raise InvalidPayload(name, f"{call!r} is neither a list or tuple of arguments nor a dict of keyword arguments")
