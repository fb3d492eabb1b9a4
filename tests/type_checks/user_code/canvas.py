"""Signatures, chains, groups and chords, and the types of their results."""

from typing import Any, assert_type

from pydantic import BaseModel

from taskapp import AsyncResult, Celery, GroupResult, Signature, chain, chord, group, signature

app = Celery("proj")


class Order(BaseModel):
    id: int


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def rows(number: int) -> list[str]:
    return []


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def ship(order: Order, days: int = 1) -> bool:
    return True


@app.task
def report(parts: list[int], order: Order) -> str:
    return ""


@app.task
def three(a: int, b: int, c: str) -> str:
    return c


# ``s`` takes all arguments, or all but the first, which the task before it returns, or none yet.
assert_type(add.s(1, 2), Signature[int])
add.s(1)
add.s(y=1)
add.s()
rows.s()
three.s(1, 2, "c")
three.s(2, "c")
three.s()
ship.s(Order(id=1))
ship.s({"id": 1}, 3)
report.s(order={"id": 1})
report.s(order=Order(id=1))
add.s("1")  # E: call-overload reportArgumentType
add.s(1, "2")  # E: call-overload reportArgumentType
add.s(1, 2, 3)  # E: call-overload reportCallIssue
add.s(z=1)  # E: call-overload reportCallIssue
three.s(1, 2)  # E: call-overload reportArgumentType
assert_type(add.si(1, 2), Signature[int])
add.si(1)  # E: call-arg reportCallIssue
add.si("1", 2)  # E: arg-type reportArgumentType
ship.si({"id": 1})

assert_type(add.s(1).set(priority=3, countdown=5), Signature[int])
add.s(1).set(priorty=3)  # E: call-arg reportCallIssue
assert_type(add.s(1).clone(args=(2,)), Signature[int])
assert_type(add.s(1).on_error(rows.s()), Signature[int])
assert_type(add.s(1, 2).delay(), AsyncResult[int])
assert_type(add.s(1, 2).apply_async(queue="low").get(), int)
assert_type(signature("proj.add", args=(1, 2)), Signature[Any])

# A chain has the result of its last task.
assert_type(add.s(1, 2) | rows.s(), chain[list[str]])
assert_type((add.s(1, 2) | rows.s()).delay().get(), list[str])
assert_type(add.s(1, 2) | rows.s() | add.s(3), chain[int])
assert_type(chain(add.s(1, 2), rows.s())().get(), list[str])
assert_type(chain(add.s(1, 2), rows.s()).apply_async().get(), list[str])
assert_type(chain([add.s(1, 2), rows.s()]), chain[Any])
assert_type(add.s(1, 2) | group(add.s(1), add.s(2)), chain[list[int]])
number: str = (add.s(1, 2) | add.s(3)).delay().get()  # E: assignment reportAssignmentType

# A group has a list.
assert_type(group(add.s(n, n) for n in range(3)), group[int])
assert_type(group(add.s(1, 1), add.s(2, 2)), group[int])
assert_type(group([add.s(1, 1)])(), GroupResult[int])
assert_type(group(add.s(1, 1)).apply_async().get(), list[int])
assert_type([each.get() for each in group(add.s(1, 1)).delay()], list[int])
group(1)  # E: call-overload reportCallIssue reportArgumentType

# A chord has the result of its body.
assert_type(chord([add.s(1, 1), add.s(2, 2)], total.s()), chord[int])
assert_type(chord(add.s(n, n) for n in range(3))(total.s()).get(), int)
assert_type((group(add.s(1, 1), add.s(2, 2)) | total.s()).delay().get(), int)
assert_type(chord([add.s(1, 1)], total.s()).apply_async(priority=3).get(), int)


async def in_a_coroutine() -> None:
    assert_type(await add.s(1, 2).aapply_async(priority=3), AsyncResult[int])
    assert_type(await (await add.s(1, 2).adelay()), int)
    assert_type(await (await chain(add.s(1, 2), rows.s()).aapply_async()), list[str])
    assert_type(await (await (add.s(1, 2) | rows.s()).adelay()).aget(timeout=3), list[str])
    assert_type(await group(add.s(1, 1), add.s(2, 2)).aapply_async(), GroupResult[int])
    assert_type(await (await group(add.s(1, 1), add.s(2, 2)).adelay()), list[int])
    assert_type(await (await chord([add.s(1, 1)], total.s()).aapply_async()), int)
    await group(add.s(1, 1)).aapply_async(priorty=3)  # E: call-arg reportCallIssue
    value: str = await (await chord([add.s(1, 1)], total.s()).adelay())  # E: assignment reportAssignmentType
    assert value
