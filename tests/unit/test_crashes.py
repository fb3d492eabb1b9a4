"""How often a task killed its child process, as a node counts it for brokers that do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError
from celery.worker import state

from taskapp.errors import CrashedTooOften
from taskapp.settings import get_settings
from taskapp.worker.consume import crashes
from taskapp.worker.consume.crashes import Crashes, crashed_too_often


@pytest.fixture
def request_(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(crashes, "crashes", Crashes())
    return SimpleNamespace(id="id", task=SimpleNamespace(name="shop.pay"))


def test_a_task_is_counted_until_it_ends() -> None:
    counts = Crashes()

    assert [counts.count("a"), counts.count("b"), counts.count("a")] == [1, 1, 2]
    counts.forget("a")
    counts.forget("never seen")
    assert [counts.count("a"), counts.count("b")] == [1, 2]


def test_only_the_tasks_that_crashed_last_are_counted() -> None:
    counts = Crashes(tasks_kept=2)
    for task_id in ("old", "busy", "busy", "new"):
        counts.count(task_id)

    assert counts.count("busy") == 3
    assert counts.count("old") == 1


def test_the_limit_is_that_of_the_settings(request_: Any) -> None:
    lost = WorkerLostError("killed")

    told = [crashed_too_often(request_, lost) for _ in range(get_settings().crash_limit)]

    assert told[:-1] == [None] * (get_settings().crash_limit - 1)
    assert isinstance(told[-1], CrashedTooOften)
    assert told[-1].args == ("shop.pay", "id")


@pytest.mark.parametrize("error", [None, ValueError("no"), KeyboardInterrupt()])
def test_nothing_but_a_lost_process_is_a_crash(request_: Any, error: BaseException | None) -> None:
    assert [crashed_too_often(request_, error) for _ in range(10)] == [None] * 10


@pytest.mark.parametrize("told", ["should_stop", "should_terminate"])
def test_a_child_that_a_stopping_node_kills_is_no_crash(
    request_: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, told, 0)

    assert [crashed_too_often(request_, WorkerLostError("killed")) for _ in range(10)] == [None] * 10
