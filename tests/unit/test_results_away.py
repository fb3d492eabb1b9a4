"""Reading results while their server is away: one sentence with the address and the remedy, and no password."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest
import redis

from taskapp import Celery
from taskapp.errors import TaskappError
from tests.support import free_port

WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "state": lambda result, _: result.state,
    "get": lambda result, _: result.get(timeout=5),
    "ready": lambda result, _: result.ready(),
    "info": lambda result, _: result.info,
    "children": lambda result, _: result.children,
    "forget": lambda result, _: result.forget(),
    "get of a group": lambda _, group: group.get(timeout=5),
    "ready of a group": lambda _, group: group.ready(),
    "iter_native": lambda _, group: list(group.iter_native()),
    "save": lambda _, group: group.save(),
    "delete": lambda _, group: group.delete(),
    "restore": lambda _, group: group.app.GroupResult.restore("b"),
}


def results_of(**options: Any) -> tuple[Any, Any]:
    app = Celery("away", set_as_current=False, **options)
    result = app.AsyncResult("a")
    return result, app.GroupResult("g", [result, app.AsyncResult("b")])


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_is_away_is_named_with_its_remedy(way: str) -> None:
    port = free_port()
    results = results_of(broker="redis://127.0.0.1:1/0", backend=f"redis://:secret@127.0.0.1:{port}/3")
    with pytest.raises(redis.ConnectionError) as caught:
        WAYS[way](*results)

    assert isinstance(caught.value, TaskappError)
    assert isinstance(caught.value, redis.TimeoutError)  # whichever of them the caller expects
    where = f"results cannot be read or written: redis://:***@127.0.0.1:{port}/3 cannot be reached "
    assert str(caught.value).startswith(where)
    assert str(caught.value).endswith("; start it, or correct result_backend")
    shown = "".join(traceback.format_exception(caught.value))
    assert "secret" not in shown
    assert "During handling" not in shown


def test_the_setting_that_holds_the_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    with pytest.raises(TaskappError, match=r"correct broker_url$"):
        results_of(broker=url)[0].get()
    monkeypatch.setenv("TASKAPP_RESULT_URL", url)
    with pytest.raises(TaskappError, match=r"correct TASKAPP_RESULT_URL$"):
        results_of(broker="redis://127.0.0.1:1/0")[0].get()
    monkeypatch.delenv("TASKAPP_RESULT_URL")
    monkeypatch.setenv("TASKAPP_BROKER_URL", url)
    with pytest.raises(TaskappError, match=r"correct TASKAPP_BROKER_URL$"):
        results_of()[0].get()
