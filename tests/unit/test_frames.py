"""Tracebacks begin with the task's own code; those without any stay as they are."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from taskapp.errors.frames import begin_in_task
from taskapp.logs.formatters import TASK_FIELDS, JSONFormatter, TextFormatter


def frame(module: str) -> Callable[[Callable[[], Any]], Any]:
    """Return a function of ``module`` that calls what it is given."""
    space: dict[str, Any] = {"__name__": module}
    exec(compile(f"def call(function):\n    return function()  # {module}", f"<{module}>", "exec"), space)
    return space["call"]  # type: ignore[no-any-return]


def fail() -> None:
    raise ValueError("boom")


def raised(*modules: str) -> ValueError:
    call: Callable[[], Any] = fail
    for module in reversed(modules):
        call = partial(frame(module), call)
    try:
        call()
    except ValueError as error:
        return error
    raise AssertionError


def places(error: BaseException) -> list[str]:
    return [each.filename.strip("<>") for each in traceback.extract_tb(error.__traceback__) if "<" in each.filename]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("taskapp.worker.run.tracer", "taskapp.app.wrapping", "shop"), ["shop"]),
        (("celery.app.trace", "asyncio.base_events", "taskapp.app.task", "shop", "celery.app"), ["shop", "celery.app"]),
        (("taskapp.app.task", "taskapp.tasks.mail.run", "taskapp.redis"), ["taskapp.tasks.mail.run", "taskapp.redis"]),
        (("taskapp_shop",), ["taskapp_shop"]),
    ],
)  # fmt: skip
def test_a_traceback_begins_with_the_task_s_code(before: tuple[str, ...], after: list[str]) -> None:
    error = raised(*before)
    error.__traceback__ = _only_made(error.__traceback__)
    begin_in_task(error)
    assert places(error) == after


def _only_made(found: Any) -> Any:
    while found is not None and "<" not in found.tb_frame.f_code.co_filename:
        found = found.tb_next
    return found


def test_one_without_any_stays_whole() -> None:
    space: dict[str, Any] = {"__name__": "taskapp.app.payload"}
    exec("def check():\n    raise ValueError", space)
    try:
        frame("taskapp.worker.run.tracer")(space["check"])
    except ValueError as caught:
        error = caught
    error.__traceback__ = _only_made(error.__traceback__)
    begin_in_task(error)
    assert len(traceback.extract_tb(error.__traceback__)) == 2


@pytest.mark.parametrize("formatter", [TextFormatter(), JSONFormatter(TASK_FIELDS)])
def test_so_do_those_in_the_log(formatter: logging.Formatter) -> None:
    try:
        frame("taskapp.worker.run.tracer")(partial(frame("shop"), fail))
    except ValueError:
        kind, error, found = sys.exc_info()
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "failed", None, (kind, error, _only_made(found)))  # type: ignore[arg-type]
    text = formatter.format(record)
    assert "<shop>" in text
    assert "<taskapp" not in text
