"""Django's own tasks, in a module that no node imports by itself."""

import asyncio
import os
import time
from pathlib import Path

from django_tasks import task

plain = 5


@task()
def double(x, *, by=2):
    return x * by


@task(priority=50)
async def adouble(x):
    await asyncio.sleep(0.01)
    return [x * 2, "on a loop" if asyncio.get_running_loop() else ""]


@task()
def fail(text):
    raise ValueError(text)


@task()
async def afail(text):
    raise LookupError(text)


@task()
def unserializable():
    return object()


@task(takes_context=True)
def attempt(context, first_must_die=False):
    if first_must_die and context.attempt == 1:
        os.kill(os.getpid(), 9)
    return [context.attempt, context.task_result.id, context.task_result.status, context.task_result.worker_ids]


@task()
def wait(path):
    while not Path(path).exists():
        time.sleep(0.05)


def not_a_task():
    raise AssertionError


@task()
def leave():
    raise SystemExit(3)
