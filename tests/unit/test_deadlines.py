"""Deadlines travel from a task to all that follows from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError

import taskapp
from taskapp import Celery, Task
from taskapp.errors.tasks import BadOption
from taskapp.outbox.capture import capture
from taskapp.outbox.pushing import RowPusher
from taskapp.testing import in_process
from taskapp.transport.deadline_header import DEADLINE_HEADER, deadline_in

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = START + timedelta(minutes=1)


@pytest.fixture
def app() -> Celery:
    app = Celery("deadlines", set_as_current=False, broker="redis://never.invalid")

    @app.task(name="dl.step", shared=False)
    def step(value: Any = None) -> Any:
        return value

    @app.task(name="dl.parent", shared=False, bind=True)
    def parent(self: Task, how: str, options: Any = None) -> None:
        HOW[how](step, options or {})

    @app.task(name="dl.again", shared=False, bind=True, max_retries=1, default_retry_delay=1)
    def again(self: Task) -> Any:
        if not self.request.retries:
            raise self.retry()
        return self.request.get(DEADLINE_HEADER)

    return app


@pytest.fixture
def tasks(app: Celery) -> Iterator[Any]:
    with in_process(app, start=START) as tasks:
        yield tasks


HOW: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "delay": lambda step, _: step.delay(1),
    "apply_async": lambda step, options: step.apply_async((1,), **options),
    "group": lambda step, _: group(step.s(1), step.s(2))(),
    "chain": lambda step, _: chain(step.s(1), step.s())(),
    "chord": lambda step, _: chord([step.s(1), step.s(2)], step.s())(),
    "many": lambda step, _: step.submit_many([(1,), (2,)]),
    "kombu": lambda step, _: step.apply_async((1,), exchange="celery", routing_key="celery"),
    "passed headers": lambda step, _: step.apply_async((1,), headers={"x": 1}),
}  # fmt: skip


def ends(tasks: Any) -> set[tuple[str, Any, Any]]:
    """Return name, expiry and deadline of all submitted tasks."""
    return {
        (one.name, one.expires, deadline_in(one.options.get("headers") or {})) for one in tasks.submitted
    }  # fmt: skip


@pytest.mark.parametrize("deadline", [60, 60.0, MINUTE, MINUTE.isoformat()], ids=str)
def test_a_deadline_is_an_expiry_that_travels(app: Celery, tasks: Any, deadline: Any) -> None:
    app.tasks["dl.step"].apply_async((1,), deadline=deadline)

    assert ends(tasks) == {("dl.step", MINUTE, MINUTE.timestamp())}


@pytest.mark.parametrize("how", HOW)
def test_what_a_task_submits_has_its_deadline(app: Celery, tasks: Any, how: str) -> None:
    app.tasks["dl.parent"].apply_async((how,), deadline=60)
    tasks.advance("30s")

    assert ends(tasks) == {(name, MINUTE, MINUTE.timestamp()) for name in ("dl.parent", "dl.step")}
    assert len(tasks.submitted) >= 2


@pytest.mark.parametrize("how", HOW)
def test_without_a_deadline_nothing_expires(app: Celery, tasks: Any, how: str) -> None:
    app.tasks["dl.parent"].delay(how)
    tasks.advance("30s")

    assert {(expires, deadline) for _, expires, deadline in ends(tasks)} == {(None, None)}


@pytest.mark.parametrize(
    ("options", "expires", "deadline"),
    [
        ({"expires": 10}, 10, 60), ({"expires": 100}, 60, 60), ({"deadline": 10}, 10, 10), ({"deadline": 100}, 60, 60),
        ({"deadline": 20, "expires": 10}, 10, 20),
        ({"deadline": 20, "headers": {DEADLINE_HEADER: MINUTE.timestamp()}}, 20, 20),
    ],
)  # fmt: skip
def test_the_earlier_end_counts(app: Celery, tasks: Any, options: Any, expires: float, deadline: float) -> None:
    app.tasks["dl.parent"].apply_async(("apply_async", options), deadline=60)
    tasks.run_due()

    [child] = [one for one in ends(tasks) if one[0] == "dl.step"]
    assert child[1:] == (START + timedelta(seconds=expires), (START + timedelta(seconds=deadline)).timestamp())


def test_a_step_of_a_chain_does_not_begin_after_the_deadline(app: Celery, tasks: Any) -> None:
    step = app.tasks["dl.step"]
    result = chain(step.s(1), step.s().set(countdown=90))()
    late = chain(step.s(1), step.s().set(countdown=90)).apply_async(deadline=60)
    tasks.advance("2m", keep_failures=True)

    assert result.get() == 1
    with pytest.raises(TaskRevokedError, match="expired"):
        late.get()


def test_all_parts_of_a_canvas_have_the_same_deadline(app: Celery, tasks: Any) -> None:
    step = app.tasks["dl.step"]
    for canvas in (celery, taskapp):
        canvas.chord([step.s(1), step.s(2).set(countdown=20)], step.s()).apply_async(deadline=60)
        canvas.group(step.s(1), step.s(2)).apply_async(deadline=60)
        canvas.chain(step.s(1), step.s()).apply_async(deadline=60)
    asyncio.run(taskapp.chain(step.s(1), step.s()).aapply_async(deadline=60))
    tasks.advance("30s")

    assert ends(tasks) == {("dl.step", MINUTE, MINUTE.timestamp())}
    assert len(tasks.submitted) == 16


def test_a_retry_keeps_the_deadline(app: Celery, tasks: Any) -> None:
    result = app.tasks["dl.again"].apply_async(deadline=60)
    tasks.advance("5s")

    assert result.get() == MINUTE.timestamp()


def test_a_task_in_the_outbox_has_its_deadline(app: Celery, tasks: Any) -> None:
    rows = capture(app.tasks["dl.step"], (1,), {}, {"deadline": MINUTE}, app).rows
    tasks.advance("5s")
    RowPusher(app).push(rows)

    assert ends(tasks) == {("dl.step", MINUTE, MINUTE.timestamp())}


@pytest.mark.parametrize("deadline", ["soon", float("nan"), [1], float("inf")])
def test_what_is_no_time_is_refused(app: Celery, tasks: Any, deadline: Any) -> None:
    with pytest.raises(BadOption, match=r"deadline is .*; use seconds, a datetime or an ISO 8601 string"):
        app.tasks["dl.step"].apply_async((1,), deadline=deadline)
    assert not tasks.submitted


@pytest.mark.parametrize("value", ["soon", None, True, float("nan"), [1]])
def test_a_forged_header_is_no_deadline(value: Any) -> None:
    assert deadline_in({DEADLINE_HEADER: value}) is None
