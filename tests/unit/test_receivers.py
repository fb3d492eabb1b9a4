"""Receivers of Celery's signals: what one raises while a node works costs nobody else anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import signals

from taskapp.worker.run.receivers import WHILE_IT_WORKS, guard_receivers

GUARDED = sorted({name for name in vars(signals) if name.startswith("task_")} | set(WHILE_IT_WORKS))


@pytest.fixture(autouse=True)
def guarded() -> Iterator[None]:
    before = {name: getattr(signals, name).__class__ for name in GUARDED}
    guard_receivers()
    yield
    for name, kind in before.items():
        getattr(signals, name).__class__ = kind


@pytest.mark.parametrize("name", GUARDED)
@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
def test_the_next_receiver_is_called_all_the_same(name: str, raised: type[BaseException]) -> None:
    signal: Any = getattr(signals, name)
    called: list[str] = []

    def exits(**_: Any) -> None:
        called.append("first")
        raise raised

    def listens(**_: Any) -> None:
        called.append("second")

    for receiver in (exits, listens):
        signal.connect(receiver)
    try:
        signal.send(sender=None)
    finally:
        for receiver in (exits, listens):
            signal.disconnect(receiver)

    assert called == ["first", "second"]
