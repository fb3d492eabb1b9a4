"""Celery's own names beside taskapp's, in one module."""

import celery.result  # E without: import-untyped
from celery import Task as CeleryTask
from celery import chain, chord, group, shared_task
from celery.canvas import Signature  # E without: import-untyped

import taskapp
from taskapp import Celery

app = Celery("proj")


@app.task
def ours(x: int, y: int) -> int:
    return x + y


@shared_task  # E without: untyped-decorator
def theirs(x: int, y: int) -> int:
    return x + y


class Base(CeleryTask):  # E with: type-arg  # E without: misc
    abstract = True


@app.task(base=Base)
def on_their_base(x: int) -> str:
    return str(x)


@app.task(bind=True, base=Base)
def bound_on_their_base(self: Base, x: int) -> str:
    return str(x)


on_their_base.delay("x")  # E: arg-type reportArgumentType
bound_on_their_base.delay("x")  # E: arg-type reportArgumentType
theirs.delay("x", 1)  # E with: arg-type reportArgumentType  # E without: reportFunctionMemberAccess
ours.delay("x", 1)  # E: arg-type reportArgumentType

chain(ours.s(1, 2), theirs.s(3)).apply_async()  # E without: reportFunctionMemberAccess
group(ours.s(1, 2), theirs.s(3, 4)).apply_async()  # E without: reportFunctionMemberAccess
chord([ours.s(1, 2), theirs.s(3, 4)], ours.s(1)).apply_async()  # E without: reportFunctionMemberAccess
(ours.s(1, 2) | theirs.s(3)).apply_async()  # E without: reportFunctionMemberAccess
taskapp.chain(theirs.s(1, 2), ours.s(3)).apply_async()  # E without: reportFunctionMemberAccess
taskapp.group(theirs.s(1, 2), ours.s(3, 4)).apply_async()  # E without: reportFunctionMemberAccess
taskapp.chord([theirs.s(1, 2)], ours.s(3)).apply_async()  # E without: reportFunctionMemberAccess
(theirs.s(1, 2) | ours.s(3)).apply_async()  # E without: reportFunctionMemberAccess


def for_celery(
    task: "CeleryTask[..., int]",
    signature: "Signature[int]",
    result: "celery.result.AsyncResult[int]",  # E without: reportInvalidTypeArguments
    app: celery.Celery,
) -> None: ...


for_celery(ours, ours.s(1, 2), ours.delay(1, 2), app)
