"""A task type whose hooks and signals leave a note each."""

from __future__ import annotations

from typing import Any

from celery import signals

from taskapp.app.task import Task
from tests.integration.semantics.bodies import both, note, pause


class Observed(Task):
    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note(task_id, "before_start", args, kwargs)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note(task_id, "on_success", retval, args, kwargs)

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(task_id, "on_failure", repr(exc), args, kwargs, type(einfo).__name__)

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(task_id, "on_retry", repr(exc), args, kwargs, type(einfo).__name__)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(task_id, "after_return", status, repr(retval), args, kwargs, einfo)


@both(bind=True, base=Observed)
async def observed(self: Any, end: str, word: str = "") -> str:
    await pause(0)
    note(self.request.id, "body")
    if end == "failure":
        raise ValueError(word)
    if end == "retry" and not self.request.retries:
        raise self.retry(exc=ValueError(word), countdown=0)
    if end == "nap":
        await pause(60)
    return word


def _is_observed(sender: Any) -> bool:
    return str(getattr(sender, "name", "")).startswith("observed.")


@signals.task_received.connect(weak=False)
def _on_received(request: Any, **_: Any) -> None:
    if _is_observed(request.task):
        note(request.id, "task_received")


@signals.task_prerun.connect(weak=False)
def _on_prerun(sender: Any, task_id: str, task: Any, args: Any, kwargs: Any, **_: Any) -> None:
    if _is_observed(sender):
        note(task_id, "task_prerun", task is sender, args, kwargs, task.request.id == task_id)


@signals.task_postrun.connect(weak=False)
def _on_postrun(sender: Any, task_id: str, args: Any, kwargs: Any, retval: Any, state: Any, **_: Any) -> None:
    if _is_observed(sender):
        note(task_id, "task_postrun", args, kwargs, type(retval).__name__, state)


@signals.task_success.connect(weak=False)
def _on_success(sender: Any, result: Any, **_: Any) -> None:
    if _is_observed(sender):
        note(sender.request.id, "task_success", result)


@signals.task_failure.connect(weak=False)
def _on_failure(sender: Any, task_id: str, exception: Any, args: Any, kwargs: Any, **_: Any) -> None:
    if _is_observed(sender):
        note(task_id, "task_failure", repr(exception), args, kwargs)


@signals.task_retry.connect(weak=False)
def _on_retry(sender: Any, request: Any, reason: Any, **_: Any) -> None:
    if _is_observed(sender):
        note(request.id, "task_retry", repr(reason.exc))


@signals.task_revoked.connect(weak=False)
def _on_revoked(sender: Any, request: Any, terminated: bool, expired: bool, **_: Any) -> None:
    if _is_observed(sender):
        note(request.id, "task_revoked", terminated, expired)
