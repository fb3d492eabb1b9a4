"""``apply()`` and ``task_always_eager``: a coroutine is run to its end, also where a loop runs already."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from celery import Celery, chain

FORMS = pytest.mark.parametrize("form", ["def", "async"])


@pytest.fixture
def eager(app: Celery) -> Iterator[Celery]:
    app.conf.task_always_eager = True
    yield app
    app.conf.task_always_eager = False


@FORMS
def test_apply_returns_what_the_task_returns(app: Celery, form: str) -> None:
    result = app.tasks[f"echo.{form}"].apply((1,), {"b": 2})

    assert (result.state, result.get()) == ("SUCCESS", [[1], {"b": 2}])


@FORMS
def test_apply_gives_a_request_and_retries(app: Celery, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.integration.semantics.bodies.note", lambda *_: None)

    assert app.tasks[f"flaky.{form}"].apply((2,)).get() == 2
    assert app.tasks[f"automatic.{form}"].apply(("retried", 2)).get() == 2
    described = app.tasks[f"describe.{form}"].apply((1,), {"b": 2}, task_id="x", routing_key="r").get()
    assert (described["id"], described["current_id"], described["is_eager"]) == ("x", "x", True)
    assert (list(described["args"]), described["kwargs"], described["called_directly"]) == ([1], {"b": 2}, False)
    result = app.tasks[f"failing.{form}"].apply(("no such order",))
    assert (result.state, repr(result.result)) == ("FAILURE", "ValueError('no such order')")


@FORMS
def test_always_eager_runs_at_once_what_is_sent(eager: Celery, form: str) -> None:
    double = eager.tasks[f"double.{form}"]

    assert double.delay(2).get() == 4
    assert chain(double.s(1), double.s(), double.s()).apply_async().get() == 8


def test_apply_works_on_a_running_loop(app: Celery) -> None:
    async def handler() -> object:
        return app.tasks["echo.async"].apply((1,)).get()

    assert asyncio.run(handler()) == [[1], {}]


def test_a_coroutine_task_called_as_a_function_is_yours_to_await(app: Celery) -> None:
    assert asyncio.run(app.tasks["double.async"](3)) == 6


def test_a_coroutine_task_that_calls_itself_awaits_itself(app: Celery) -> None:
    assert app.tasks["count_down.async"].apply((3,)).get() == [3, 2, 1, 0]
