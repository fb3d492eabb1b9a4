"""Running tasks pause their rate for all nodes, with real nodes on a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskapp.client.limits.rate_control import lend_limits
from taskapp.errors.limits import BadPause, LimitNeedsRedis, NoRateToPause
from tests.integration import pausing
from tests.support import Process, eventually, start_worker

StartWorker = Callable[..., Process]
MODULE = "tests.integration.pausing"
PAUSING = [
    pausing.calls, pausing.calls_in_a_coroutine, pausing.calls_in_a_child, pausing.calls_acknowledged,
    pausing.calls_and_goes_back, pausing.calls_and_fails, pausing.is_refused, pausing.is_refused_in_a_coroutine,
    pausing.is_refused_and_fails, pausing.is_refused_after_its_end,
]  # fmt: skip


@pytest.fixture
def two_nodes(app: Any, worker: StartWorker) -> None:
    for name in ("first", "second"):
        worker("-c", "4", name=name, TASKAPP_INCLUDE=MODULE)


def pauses(app: Any, task: Any, tenant: str) -> float:
    """How long the key of ``task`` is still paused, seconds by the server's clock."""
    with lend_limits(app) as admin:
        assert admin is not None
        known = admin._link.command("GET", admin._keys("rate", task.name, tenant)) or b"0:0:"
        seconds, offset = admin._link.command("TIME"), admin._link.command("HGET", admin._keys("clock"), "offset")
    return float(known.split(b":")[1]) / 1_000 - float(seconds[0]) - float(offset or 0) / 1_000


@pytest.mark.usefixtures("two_nodes")
def test_a_run_pauses_its_key_for_all_nodes_and_no_other(app: Any) -> None:
    for task in PAUSING:
        task.delay("a")
    for task in PAUSING:
        assert eventually(lambda task=task: pauses(app, task, "a") > 0), task.name
        assert pauses(app, task, "a") == pytest.approx(pausing.SECONDS, abs=30)

    held = [task.delay("a") for task in PAUSING]
    for task in PAUSING:
        result = task.delay("b")
        assert eventually(lambda task=task: pauses(app, task, "b") > 0), task.name
        assert result.id
    assert not any(result.ready() for result in held)
    # Without this task's own pauses, its key is that of its type alone.
    assert pausing.waits.delay("a").get(timeout=30) == "a"


@pytest.mark.usefixtures("two_nodes")
def test_an_invalid_time_in_an_error_pauses_nothing_and_years_pause_for_a_day(app: Any) -> None:
    for seconds in (None, "soon", float("nan"), -1, True, [3]):
        result = pausing.is_refused_badly.delay("x", seconds)

        assert isinstance(result.get(timeout=30, propagate=False), BaseException)
        assert pauses(app, pausing.is_refused_badly, "x") <= 0
    pausing.is_refused_badly.delay("x", 1e9).get(timeout=30, propagate=False)

    assert pauses(app, pausing.is_refused_badly, "x") == pytest.approx(86_400, abs=60)


@pytest.mark.usefixtures("two_nodes")
def test_a_task_without_a_rate_for_all_nodes_cannot_pause_it() -> None:
    for task in (pausing.has_no_rate, pausing.has_a_rate_for_each_node):
        with pytest.raises(NoRateToPause, match="none that holds for all nodes; declare one, as in rate_limit='100/m'"):
            task.delay("a").get(timeout=30)


@pytest.mark.usefixtures("app")
def test_outside_a_worker_nothing_is_paused_and_mistakes_show() -> None:
    assert pausing.calls.apply(("a",)).get() is None
    with pytest.raises(NoRateToPause):
        pausing.has_no_rate.apply(("a",)).get()
    for seconds in (-1, float("inf"), 1e9, True, "30"):
        with pytest.raises(BadPause, match=r"use a number of seconds from 0 to 86,400"):
            pausing.calls.pause_rate(seconds)


def test_on_rabbitmq_the_rate_is_each_nodes_own_and_cannot_be_paused(
    app: Any, tmp_path: Path, rabbitmq_url: str, redis_server: Any
) -> None:
    settings = {"TASKAPP_INCLUDE": "tests.integration.pausing_elsewhere", "TASKAPP_RESULT_URL": redis_server.url}
    process = start_worker(tmp_path, rabbitmq_url, "-c", "2", **settings)
    try:
        with app.connection_for_write(url=rabbitmq_url) as connection:
            result = app.send_task("tests.integration.pausing_elsewhere.pauses", connection=connection)
        with pytest.raises(LimitNeedsRedis, match="'pause_rate'"):
            result.get(timeout=60)
    finally:
        process.kill()
