"""Task types that pause their rate, as a user writes them."""

from __future__ import annotations

from typing import Any

from celery.exceptions import Reject

from taskapp import Task, shared_task

SECONDS = 600.0
RATE: dict[str, Any] = {"rate_limit": "1000/s", "rate_burst": 100, "rate_key": "{tenant}", "max_retries": 1}


class TooManyRequests(Exception):
    """HTTP 429."""

    def __init__(self, seconds: object = SECONDS) -> None:
        self.retry_after_seconds = seconds
        super().__init__(seconds)


@shared_task(bind=True, **RATE)
def calls(self: Task, tenant: str) -> None:
    self.pause_rate(SECONDS)


@shared_task(bind=True, **RATE)
async def calls_in_a_coroutine(self: Task, tenant: str) -> None:
    self.pause_rate(SECONDS)


@shared_task(bind=True, cpu_bound=True, **RATE)
def calls_in_a_child(self: Task, tenant: str) -> None:
    self.pause_rate(SECONDS)


@shared_task(bind=True, acks_late=False, **RATE)
def calls_acknowledged(self: Task, tenant: str) -> None:
    self.pause_rate(SECONDS)


@shared_task(bind=True, **RATE)
def calls_and_goes_back(self: Task, tenant: str) -> None:
    self.pause_rate(SECONDS)
    raise Reject("again", requeue=True)


@shared_task(bind=True, **RATE)
def calls_and_fails(self: Task, tenant: str) -> None:
    self.pause_rate(SECONDS)
    raise ValueError("after the pause")


@shared_task(autoretry_for=(TooManyRequests,), **RATE)
def is_refused(tenant: str) -> None:
    raise TooManyRequests


@shared_task(autoretry_for=(TooManyRequests,), **RATE)
async def is_refused_in_a_coroutine(tenant: str) -> None:
    raise TooManyRequests


@shared_task(cpu_bound=True, **RATE)
def is_refused_and_fails(tenant: str) -> None:
    raise TooManyRequests


@shared_task(bind=True, acks_late=False, **RATE)
def is_refused_after_its_end(self: Task, tenant: str) -> None:
    raise self.retry(exc=TooManyRequests())


@shared_task(**RATE)
def is_refused_badly(tenant: str, seconds: object) -> None:
    raise TooManyRequests(seconds)


@shared_task(bind=True, rate_limit="5/s", rate_scope="node")
def has_a_rate_for_each_node(self: Task, tenant: str) -> None:
    self.pause_rate(SECONDS)


@shared_task(bind=True)
def has_no_rate(self: Task, tenant: str) -> None:
    self.pause_rate(SECONDS)


@shared_task(**RATE)
def waits(tenant: str) -> str:
    return tenant
