"""Each way to submit a task, and the type of its result."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, assert_type

from taskapp import AsyncResult, Celery, Signature, Task

app = Celery("proj")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task
async def fetch(url: str) -> list[str]:
    return [url]


@app.task
def ping() -> None: ...


assert_type(add.delay(1, 2), AsyncResult[int])
add.delay()  # E: call-arg reportCallIssue
add.delay(1, 2, 3)  # E: call-arg reportCallIssue
add.delay(1, z=2)  # E: call-arg reportCallIssue
add.delay(1, y="2")  # E: arg-type reportArgumentType
ping.delay()
ping.delay(1)  # E: call-arg reportCallIssue

assert_type(add.apply_async((1, 2)), AsyncResult[int])
assert_type(add.apply_async(args=[1], kwargs={"y": 2}, countdown=3, priority=9, queue="high"), AsyncResult[int])
add.apply_async((1,), eta=datetime.now(UTC), expires=60, headers={"a": "b"}, link=ping.si(), task_id="a", shadow="b")
add.apply_async((1,), priorty=9)  # E: call-arg reportCallIssue
add.apply_async((1,), priority="high")  # E: arg-type reportArgumentType
add.apply_async((1,), countdown="3 s")  # E: arg-type reportArgumentType
add.apply_async(1)  # E: arg-type reportArgumentType
add.apply_async((1,), unique_key="order-17", on_duplicate="raise", fair_key="acme", rate_cost=2.5, rate_key=7)
add.apply_async((1,), unique=False, concurrency_key="acme", on_busy="drop", debounce=5, debounce_at_most=60)
add.apply_async((1,), on_duplicate="rase")  # E: arg-type reportArgumentType
add.apply_async((1,), max_concurrency=3)  # E: call-arg reportCallIssue

assert_type(add.submit_many([(1, 2), [3, 4], {"x": 5}], priority=3), list[AsyncResult[int]])
add.submit_many([1, 2])  # E: list-item reportArgumentType
add.submit_many([(1,)], priorty=3)  # E: call-arg reportCallIssue

result = add.delay(1)
assert_type(result.get(timeout=3), int)
assert_type(result.id, str)
assert_type(result.state, str)
assert_type(result.ready(), bool)
result.get(timeout="3")  # E: arg-type reportArgumentType
text: str = result.get()  # E: assignment reportAssignmentType
assert_type(add.AsyncResult("id"), AsyncResult[int])
assert_type(add.apply((1, 2)).get(), int)


async def in_a_coroutine() -> None:
    assert_type(await add.adelay(1), AsyncResult[int])
    assert_type(await (await add.adelay(1)), int)
    assert_type(await (await fetch.adelay("u")).aget(timeout=3), list[str])
    assert_type(await fetch.aapply_async(("u",), priority=3), AsyncResult[list[str]])
    assert_type(await add.asubmit_many([(1, 2)], queue="low"), list[AsyncResult[int]])
    await add.adelay("1")  # E: arg-type reportArgumentType
    await add.adelay()  # E: call-arg reportCallIssue
    await fetch.adelay(url=1)  # E: arg-type reportArgumentType
    await add.aapply_async((1,), queues="low")  # E: call-arg reportCallIssue
    await result.aget(timeout="3")  # E: arg-type reportArgumentType
    value: str = await result  # E: assignment reportAssignmentType
    assert value


# --- variables and parameters ------------------------------------------------------------------------

any_task: Task = add
of_two: Callable[[int, int], AsyncResult[int]] = add.delay
exact: Task[[str], list[str]] = fetch
loose: Task[..., int] = add
wrong: Task[[str], list[str]] = add  # E: assignment reportAssignmentType
wrong_result: Task[..., str] = add  # E: assignment reportAssignmentType


def keep(task: Task[..., int], result: AsyncResult[int], signature: Signature[int]) -> None: ...


keep(add, add.delay(1), add.s(1))
keep(add, fetch.delay(""), add.s(1))  # E: arg-type reportArgumentType
keep(add, add.delay(1), fetch.s(""))  # E: arg-type reportArgumentType
keep(fetch, add.delay(1), add.s(1))  # E: arg-type reportArgumentType


def by_name(task_id: str) -> Any:
    return app.AsyncResult(task_id).get(), app.send_task("proj.add", (1, 2)).get()
