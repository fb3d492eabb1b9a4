"""Functions that strategies of their own give the pool: their callbacks cost nobody else anything."""

from __future__ import annotations

from typing import Any

import pytest
from billiard.einfo import ExceptionInfo

from taskapp.worker.pool.jobs import FunctionCall, FunctionCallbacks


def failure() -> ExceptionInfo:
    try:
        raise ValueError("why")
    except ValueError:
        return ExceptionInfo()


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
def test_what_a_callback_raises_is_logged(caplog: pytest.LogCaptureFixture, raised: type[BaseException]) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise raised

    callbacks = FunctionCallbacks(refuse, refuse, refuse, refuse)

    callbacks.on_accepted(1, 0.0)
    callbacks.on_success((0, "done"))
    callbacks.on_success((1, failure()))
    callbacks.on_timeout(soft=True, timeout=1.0)

    assert len(caplog.records) == 4


def test_who_gave_a_function_that_cannot_be_begun_is_told() -> None:
    pool: Any = None
    heard: list[Any] = []
    call = FunctionCall(pool, "thread", FunctionCallbacks(None, None, heard.append, None), (print, (), {}), None, None)

    error = failure().exception.exc
    call.refuse(error)

    assert [one.exception.exc for one in heard] == [error]
    assert call.is_stopped
