"""A project whose scenarios run in the testing kit and on a real node; each returns the results to compare."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from celery import Task as StockTask
from celery import chain, chord, group, shared_task
from celery.exceptions import Ignore, Reject
from kombu import Queue
from pydantic import BaseModel

from taskapp import Celery

app = Celery("compared", set_as_current=False)
app.conf.task_queues = [Queue("first"), Queue("celery"), Queue("low")]
app.conf.broker_transport_options = {"starvation_guard": 0}  # the kit has none


class Order(BaseModel):
    id: int
    lines: list[str] = []


class Refused(Exception):
    """An error with arguments of its own."""


class Known(StockTask):  # type: ignore[type-arg]
    name = "compared.known"

    def run(self, name: str) -> str:
        return f"{type(self).__name__} {name}"


known = app.register_task(Known())


@app.task
def add(x: Any, y: Any) -> Any:
    return x + y


@app.task
def total(values: list[int]) -> int:
    return sum(values)


@app.task
def fail(text: str) -> None:
    raise Refused(text, 7)


@app.task(bind=True, max_retries=5)
def flaky(self: Any, times: int) -> int:
    if self.request.retries < times:
        raise self.retry(countdown=0.2, exc=ConnectionError("away"))
    return int(self.request.retries)


@app.task(autoretry_for=(ConnectionError,), max_retries=2, default_retry_delay=0.1)
def gives_up() -> None:
    raise ConnectionError("away")


@app.task
async def async_add(x: int, y: int) -> int:
    return x + y


@app.task
def order(given: Order) -> Order:
    return Order(id=given.id + 1, lines=[*given.lines, "more"])


@app.task
def same(*args: Any, **kwargs: Any) -> Any:
    return [args, kwargs]


@app.task
def is_datetime(value: Any) -> bool:
    return isinstance(value, datetime)


@app.task(bind=True)
def replaced(self: Any) -> Any:
    return self.replace(add.s(1, 2))


@app.task(bind=True)
def fans_out(self: Any) -> Any:
    return self.replace(group(add.s(i, i) for i in range(3)))


@app.task(ignore_result=True)
def quiet() -> int:
    return 1


@app.task
def ends(how: str) -> None:
    raise Ignore if how == "ignore" else Reject("no", requeue=False)


@app.task(bind=True)
def about(self: Any) -> Any:
    request = self.request
    return [
        request.retries, request.delivery_info["routing_key"], request.delivery_info["priority"], request.headers,
        request.root_id == request.id, request.parent_id, request.timelimit, request.args, request.kwargs,
        request.called_directly, request.is_eager, request.ignore_result, request.group,
    ]  # fmt: skip


@app.task(bind=True)
def parent(self: Any, path: str) -> bool:
    child = write.delay(path, "child")
    return child.id is not None


@app.task
def write(path: str, text: str) -> str:
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    return text


@app.task
def hold(path: str) -> None:
    """Keep the only slot until the file exists."""
    deadline = time.monotonic() + 30
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@shared_task
def shared(x: int) -> int:
    return 2 * x


@app.task
def write_error(request: Any, error: Any, traceback: Any, path: str) -> None:
    write(path, f"error {type(error).__name__}")


Scenario = Callable[[str], dict[str, Any]]
"""Submits tasks, which may write lines to the given file; returns the results to wait for."""


def plain(path: str) -> dict[str, Any]:
    return {
        "add": add.delay(2, 3), "fail": fail.delay("bad"), "async": async_add.delay(1, 2), "class": known.delay("x"),
        "shared": shared.delay(4), "by name": app.send_task("tests.integration.testing.compared.add", (1, 1)),
        "model": order.delay(Order(id=1, lines=["a"])), "tuples": same.delay((1, 2), {1: "x"}, key=("y",)),
        "datetime": is_datetime.delay(datetime(2026, 1, 1, tzinfo=UTC)), "many": add.submit_many([(1, 1), (2, 2)])[1],
    }  # fmt: skip


def canvas(path: str) -> dict[str, Any]:
    return {
        "chain": chain(add.s(1, 2), add.s(3), add.s(4))(),
        "immutable": chain(add.s(1, 2), add.si(10, 10))(),
        "broken chain": chain(add.s(1, 2), fail.si("broken"), add.si(1, 1))().parent,
        "group": group(add.s(i, i) for i in range(4))(),
        "chord": chord([add.s(1, 2), async_add.s(3, 4)], total.s())(),
        "chord of one": chord([add.s(1, 2)], total.s())(),
        "nested chord": chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(3, 3)], total.s())(),
        "chord of chains": chord([chain(add.s(1, 1), add.s(1)), add.s(5, 5)], total.s())(),
        "group in chain": chain(group(add.s(1, 1), add.s(2, 2)), total.s(), add.s(100))(),
        "failed chord": chord([add.s(1, 2), fail.s("bad")], total.s())(),
        "chunks": add.chunks([(1, 1), (2, 2), (3, 3)], 2)(),
        "starmap": add.starmap([(1, 1), (2, 2)]).delay(),
        "replaced": replaced.delay(), "fans out": fans_out.delay(),
        "replaced in chain": chain(replaced.si(), add.s(10))(),
    }  # fmt: skip


def retries(path: str) -> dict[str, Any]:
    return {"flaky": flaky.delay(2), "gives up": gives_up.delay(), "in chain": chain(flaky.s(1), add.s(10))()}


def times(path: str) -> dict[str, Any]:
    revoked = add.apply_async((1, 1), countdown=1)
    revoked.revoke()
    return {
        "expired": add.apply_async((1, 1), countdown=0.6, expires=0.2), "late": add.apply_async((1, 1), countdown=0.4),
        "in time": add.apply_async((1, 1), expires=60), "revoked": revoked,
    }  # fmt: skip


def links(path: str) -> dict[str, Any]:
    ok = add.apply_async((1, 2), link=write.si(path, "linked"))
    bad = fail.apply_async(("bad",), link=write.si(path, "never"), link_error=write_error.s(path))
    return {"ok": ok, "bad": bad, "parent": parent.delay(path)}


def requests(path: str) -> dict[str, Any]:
    options = {"queue": "low", "priority": 3, "headers": {"tenant": "acme"}, "time_limit": 50, "soft_time_limit": 40}
    return {"plain": about.delay(), "options": about.apply_async(**options)}


def unkept(path: str) -> dict[str, Any]:
    """These never become ready."""
    return {"quiet": quiet.delay(), "ignore": ends.delay("ignore"), "reject": ends.delay("reject")}


def order_of_runs(path: str) -> dict[str, Any]:
    """The node's only slot is held while these are submitted."""
    sent = [("low", 9), ("celery", 0), ("celery", 5), ("celery", 5), ("first", 0), ("celery", 9), ("first", 1)]
    results = {}
    for index, (queue, priority) in enumerate(sent):
        text = f"{index} {queue} {priority}"
        results[text] = write.apply_async((path, text), queue=queue, priority=priority)
    return results


SCENARIOS: dict[str, Scenario] = {
    each.__name__: each for each in (plain, canvas, retries, times, links, requests, unkept, order_of_runs)
}
LINES = {"links": 3, "order_of_runs": 7}
"""How many lines a scenario writes."""
NEVER_READY = {"unkept"}
