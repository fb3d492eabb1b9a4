"""What of Celery we replace or lean on: when it changes, somebody has to look at ours."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from typing import Any

import celery
import pytest
from celery import _state
from celery.app import trace
from celery.app.autoretry import add_autoretry_behaviour
from celery.backends.base import Backend
from celery.utils.dispatch import Signal
from celery.utils.threads import LocalStack
from celery.worker import control, request, strategy

from taskapp.execution.current_task import ContextStack

REQUEST = "taskapp/worker/consume/request.py:Request"

PINNED = {
    (trace.build_tracer, "taskapp/worker/run/tracer.py:Runner"): "b2945aec38e1",
    (trace.TraceInfo, "taskapp/worker/run/reports.py:Reports"): "a07fc09754c4",
    (trace.trace_task_ret, "taskapp/worker/run/execute.py:run"): "edf3530c917c",
    (trace.fast_trace_task, "taskapp/worker/run/execute.py:run"): "52c76aab90e1",
    (strategy.default, "taskapp/worker/consume/strategy.py:Strategy"): "7d90575ada5e",
    (request.create_request_cls, REQUEST): "871f30fe1cfe",
    (
        request.Request.execute_using_pool,
        f"{REQUEST}.execute_using_pool",
    ): "7979562da58f",
    (request.Request.on_success, f"{REQUEST}.on_success"): "8d11e320facd",
    (request.Request.on_failure, f"{REQUEST}.on_failure"): "21736ec661cd",
    (request.Request.on_timeout, f"{REQUEST}.on_timeout"): "3d26ce896008",
    (request.Request.on_retry, f"{REQUEST}.on_retry"): "ea63dbc5c2ce",
    (add_autoretry_behaviour, "taskapp/app/wrapping.py:checked"): "4a97591ccc3e",
    (Backend._handle_group_chord_error, "taskapp/results/chords.py:Chords._fail_group"): "751f439988b0",
    (control._revoke, "taskapp/worker/pool/pool.py: how calls are ended"): "18694eabe82f",
    (Signal.send, "taskapp/worker/run/receivers.py:GuardedSignal.send"): "6611d2ac9dec",
    (celery.Task.apply, "taskapp/app/task.py:Task.__call__"): "0b622ed91df5",
    (celery.Task.retry, "taskapp/app/task.py:Task.retry"): "82cd910b5966",
}
"""The first digits of the SHA-256 of what we replace or lean on in Celery, as it was when ours was written."""


@pytest.mark.parametrize(("theirs", "ours"), PINNED, ids=lambda it: getattr(it, "__qualname__", ""))
def test_what_of_celery_we_stand_in_for_has_not_changed(theirs: Any, ours: str) -> None:
    now = hashlib.sha256(inspect.getsource(theirs).encode()).hexdigest()[:12]

    assert now == PINNED[theirs, ours], (
        f"{theirs.__module__}.{theirs.__qualname__} of Celery {celery.__version__} is not the one {ours} was written "
        f"after; compare the two, carry over what matters, and write {now!r} into PINNED in {__name__}"
    )


def test_celery_still_keeps_its_current_task_by_thread_in_one_object_that_is_imported_by_name() -> None:
    """When this fails, look whether ``taskapp/execution/current_task.py:follow_contexts`` may go."""
    bound_by_name = [module for module in (_state, trace, celery.app.task) if hasattr(module, "_task_stack")]

    assert not hasattr(_state, "set_task_stack")
    assert len({id(module._task_stack) for module in bound_by_name}) == 1
    assert len(bound_by_name) == 3
    assert "ContextVar" not in inspect.getsource(inspect.getmodule(LocalStack))  # type: ignore[arg-type]


def test_without_our_stack_tasks_that_take_turns_on_a_loop_see_each_other() -> None:
    """The reason for ``ContextStack``: what Celery has mixes up the tasks of one thread."""

    async def two(stack: Any) -> list[Any]:
        async def one(name: str) -> Any:
            stack.push(name)
            await asyncio.sleep(0)
            top = stack.top
            stack.pop()
            return top

        return await asyncio.gather(one("a"), one("b"))

    assert asyncio.run(two(ContextStack())) == ["a", "b"]
    assert asyncio.run(two(LocalStack())) != ["a", "b"]
