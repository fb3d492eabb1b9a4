"""Task types with retry policies, as a user writes them."""

from __future__ import annotations

from typing import Any

from taskapp import Backoff, Task, shared_task

AT_ONCE: dict[type[Exception], Backoff] = {
    TimeoutError: Backoff(first=0),
    OSError: Backoff(first=0, max_retries=1),
    ValueError: Backoff(first=500, most=500, jitter=False),
}
KINDS: dict[str, type[Exception]] = {"timeout": TimeoutError, "os": OSError, "value": ValueError}


@shared_task(retry_on=AT_ONCE, max_retries=3)
def fails(kind: str) -> None:
    raise KINDS[kind](f"because of {kind}")


@shared_task(retry_on=AT_ONCE, max_retries=3)
async def fails_in_a_coroutine(kind: str) -> None:
    raise KINDS[kind](f"because of {kind}")


@shared_task(retry_on=AT_ONCE, max_retries=3, cpu_bound=True)
def fails_in_a_child(kind: str) -> None:
    raise KINDS[kind](f"because of {kind}")


@shared_task(bind=True, retry_on=AT_ONCE, max_retries=3)
def recovers(self: Task) -> int:
    if self.request.retries < 2:
        raise TimeoutError(f"attempt {self.request.retries + 1}")
    return int(self.request.retries)


BUDGET: dict[str, Any] = {
    "retry_on": {TimeoutError: Backoff(first=0)},
    "max_retries": 10,
    "retry_budget": "7/h",
    "acks_late": True,
}


@shared_task(**BUDGET)
def budgeted() -> None:
    raise TimeoutError("late")


@shared_task(**BUDGET)
async def budgeted_in_a_coroutine() -> None:
    raise TimeoutError("late")


@shared_task(**BUDGET, cpu_bound=True)
def budgeted_in_a_child() -> None:
    raise TimeoutError("late")


@shared_task(acks_late=True, bind=True, default_retry_delay=0, max_retries=10, retry_budget="7/h")
def budgeted_without_an_error(self: Task) -> None:
    raise self.retry()


@shared_task(acks_late=True, bind=True, default_retry_delay=0, max_retries=10, retry_budget="7/h")
def budgeted_with_an_error_never_raised(self: Task) -> None:
    raise self.retry(exc=TimeoutError("late"))


@shared_task(acks_late=True, retry_on={TimeoutError: Backoff(first=0, max_retries=1)}, retry_budget=0.25)
def shared_budget(fail: bool) -> None:
    if fail:
        raise TimeoutError("late")
