"""Who fails buried tasks goes on, whatever is raised on the way."""

from __future__ import annotations

from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from taskapp.engine.settlement import Settlement
from taskapp.worker.consume import failed_letters
from taskapp.worker.consume.failed_letters import Dead, DeadTaskFailer, failure_of


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
def test_a_teller_outlives_what_one_task_raises(monkeypatch: pytest.MonkeyPatch, raised: type[BaseException]) -> None:
    app: Any = SimpleNamespace()
    message = SimpleNamespace(
        headers={"id": "1", "task": "shop.mail"}, delivery_info={}, body="", content_type="application/json"
    )

    def refuse(*_: Any) -> Any:
        raise raised

    monkeypatch.setattr(failed_letters, "failure_of", refuse)
    failer, first, second = DeadTaskFailer(app), Event(), Event()

    failer.fail(message, ValueError("why"), first.set)
    assert first.wait(10)
    failer.fail(message, ValueError("why"), second.set)

    assert second.wait(10)


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
def test_what_follows_a_buried_task_cannot_keep_its_failure_from_being_stored(
    monkeypatch: pytest.MonkeyPatch, raised: type[BaseException]
) -> None:
    told: list[Any] = []

    def settled(_app: Any, dead: Dead, _error: Exception) -> Settlement:
        told.append(dead.embed)
        if dead.embed is not None:
            raise raised
        return Settlement()

    monkeypatch.setattr(failed_letters, "_settled", settled)
    monkeypatch.setattr(failed_letters, "end_of_message", lambda *_, **__: None)
    app: Any = SimpleNamespace()
    dead = Dead({"id": "1", "task": "shop.mail"}, {"errbacks": []}, "default")

    settlement = failure_of(app, dead, ValueError("why"))

    assert told == [{"errbacks": []}, None]
    assert settlement.run is not None
