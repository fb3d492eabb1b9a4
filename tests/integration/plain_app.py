"""A program with a plain Celery app, which says what it saw; ``beside`` as its argument: taskapp is imported first."""

from __future__ import annotations

import contextvars
import io
import json
import os
import sys
import threading
from typing import Any

if "beside" in sys.argv:
    from taskapp.tasks import add as of_taskapp

    assert of_taskapp.apply((1, 2)).get() == 3
    assert of_taskapp.delay(1, 2).id

import celery
from celery import chain, chord, current_task, group, signals
from celery.contrib.testing.worker import start_worker
from kombu.utils.compat import register_after_fork

app = celery.Celery("plain", broker="memory://", backend="cache+memory://", set_as_current=True)
app.conf.worker_hijack_root_logger = False
seen: dict[str, Any] = {}


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def names() -> list[Any]:
    """Who is said to run here: in the task, in a thread of its, and in one with its context."""
    said = [current_task.name]
    context = contextvars.copy_context()
    look = lambda: said.append(current_task.name if current_task else None)  # noqa: E731
    for call in (look, lambda: context.run(look)):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    return said


@app.task(bind=True, max_retries=2)
def flaky(self: Any) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries)


def canvas() -> list[Any]:
    return [
        add.delay(1, 2).get(timeout=30), chain(add.s(1, 2), add.s(3)).apply_async().get(timeout=30),
        group(add.s(1, 1), add.s(2, 2)).apply_async().get(timeout=30),
        chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async().get(timeout=30),
        add.starmap([(1, 2), (3, 4)]).apply_async().get(timeout=30),
        add.chunks([(1, 2), (3, 4)], 1).apply_async().get(timeout=30),
        total.map([[1], [2]]).apply_async().get(timeout=30),
        flaky.delay().get(timeout=30), names.delay().get(timeout=30),
    ]  # fmt: skip


stream = io.StringIO()
logger = app.log.setup_task_loggers(logfile=stream, colorize=False)
logger.warning("a line")
# Without the time.
seen["log"] = stream.getvalue().partition(": ")[2]
seen["filters"] = [str(each) for handler in logger.handlers for each in handler.filters]
logger.handlers.clear()

app.conf.task_always_eager = True
seen["eager"] = canvas()
seen["eager apply"] = names.apply().get()
app.conf.task_always_eager = False

signals.task_prerun.connect(lambda task_id, **_: 1 / 0, weak=False)
with start_worker(app, perform_ping_check=False, pool="solo", loglevel="CRITICAL", shutdown_timeout=30):
    seen["worker"] = canvas()
seen["tasks"] = sorted(app.tasks)
seen["configuration"] = sorted(app.conf.changes) if hasattr(app.conf, "changes") else []
seen["classes"] = [
    f"{type(each).__module__}.{type(each).__qualname__}"
    for each in (app.amqp, app.control, app.events, app.log, app.backend, app.connection(), app.tasks, add, add.s(1))
]  # fmt: skip
seen["steps"] = sorted(str(step) for steps in app.steps.values() for step in steps)


class Kept:
    told = False


kept = Kept()
register_after_fork(kept, lambda it: setattr(it, "told", True))
if not (child := os.fork()):
    os._exit(3 if kept.told else 4)
seen["fork"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stdout.write(json.dumps(seen, default=str))
