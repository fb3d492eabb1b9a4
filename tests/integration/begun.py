"""Task types of chords that another program begins."""

from __future__ import annotations

from typing import Any

from celery import shared_task


@shared_task(name="begun.number", bind=True)
def number(self: Any, value: int | str) -> int:
    """Return ``value``; ``later``: return 1, in a second run."""
    if value == "later":
        if not self.request.retries:
            raise self.retry(countdown=0)
        return 1
    return int(value)


@shared_task(name="begun.plus")
def plus(before: int, more: int) -> int:
    return before + more


@shared_task(name="begun.fail")
def fail() -> None:
    raise ValueError("of begun")


@shared_task(name="begun.total")
def total(numbers: list[Any]) -> int:
    return sum(total(each) if isinstance(each, list) else each for each in numbers)
