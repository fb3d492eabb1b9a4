"""A user's own tasks, whose follow-ups tell what was there when they ran."""

from __future__ import annotations

import asyncio
from pathlib import Path

from celery import chord, current_app, shared_task


@shared_task
def add(x: int, y: int) -> int:
    return x + y


@shared_task(cpu_bound=True)
def add_in_child(x: int, y: int) -> int:
    return x + y


@shared_task
async def add_on_loop(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


@shared_task
def total(values: list[int]) -> int:
    return sum(values)


@shared_task
def fail(text: str) -> None:
    raise ValueError(text)


@shared_task(bind=True)
def state_of_parent(self, *_: object) -> str:
    return str(current_app.AsyncResult(self.request.parent_id).state)


@shared_task
def note(line: str, path: str) -> None:
    with Path(path).open("a") as file:
        file.write(line + "\n")


@shared_task(bind=True, max_retries=2, default_retry_delay=0)
def note_and_retry(self, path: str) -> int:
    note("run", path)
    if self.request.retries < 2:
        raise self.retry()
    return int(self.request.retries)


@shared_task
def return_what_no_store_takes() -> object:
    return lambda: None


@shared_task
def return_it(value: object) -> object:
    """Return what it got."""
    return value


@shared_task
def return_text(size: int) -> str:
    """Return a text of ``size`` characters."""
    return "x" * size


@shared_task(bind=True)
def properties(self) -> dict[str, object]:
    return {name: value for name, value in self.request.properties.items() if not isinstance(value, dict)}


@shared_task(bind=True, max_retries=1)
def retry_once(self) -> tuple[int, dict[str, object] | None]:
    if not self.request.retries:
        raise self.retry(countdown=1.5)
    return self.request.retries, self.request.headers


@shared_task(bind=True, max_retries=2)
def parents_of_retries(self) -> list[object]:
    if self.request.retries < 2:
        raise self.retry(countdown=0, exc=ValueError("once more"))
    return [self.request.id, self.request.root_id, self.request.parent_id]


@shared_task
async def awaits_a_chord_that_fails() -> str:
    await asyncio.sleep(0)
    result = chord([fail.si("header"), add.si(1, 1)], total.s())()
    try:
        await result.aget(timeout=20)
    except Exception as error:  # noqa: BLE001 - told
        return repr(error)
    return "no error"
