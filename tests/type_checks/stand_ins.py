"""What the examples of a page take for granted: names of a reader's own project."""

from __future__ import annotations

from typing import Any
from unittest import TestCase

import httpx
import pytest
from pydantic import BaseModel
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from taskapp import AsyncResult, Celery, shared_task
from taskapp.outbox.sqlalchemy import with_session

__all__ = ["AsyncSession", "Session", "TestCase", "pytest", "shared_task", "with_session"]

app = Celery("shop")
client = httpx.AsyncClient()
engine = create_engine("sqlite://")
async_engine = create_async_engine("sqlite+aiosqlite://")
session = Session(engine)
transaction: Any = None  # of ``django.db``, which has no types
result: AsyncResult[Any] = app.AsyncResult("id")


class Base(DeclarativeBase):
    pass


class StoredOrder(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


class Order(BaseModel):
    id: int


order: Any = StoredOrder()  # Django's examples name its key ``pk``


@shared_task
def send_receipt(order: int) -> None: ...


@shared_task
def archive() -> None: ...
