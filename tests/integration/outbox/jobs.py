"""Task types of a shop."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from pydantic import BaseModel

ran: list[Any] = []


class Order(BaseModel):
    number: int


@shared_task
def pay(order: Order) -> None: ...


@shared_task
def note(*values: Any) -> None:
    """Remember that it ran, in this process."""
    ran.append(values)


@shared_task
def echo(value: Any, other: Any = None) -> Any:
    return value


@shared_task
def double(value: int) -> int:
    return 2 * value


@shared_task
def total(values: list[int]) -> int:
    return sum(values)
