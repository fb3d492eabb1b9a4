"""Who fails buried tasks goes on, whatever is raised on the way."""

from __future__ import annotations

from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from taskapp.worker import buried
from taskapp.worker.buried import Teller


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
def test_a_teller_outlives_what_one_task_raises(monkeypatch: pytest.MonkeyPatch, raised: type[BaseException]) -> None:
    app: Any = SimpleNamespace()
    message = SimpleNamespace(
        headers={"id": "1", "task": "shop.mail"}, delivery_info={}, body="", content_type="application/json"
    )

    def refuse(*_: Any) -> Any:
        raise raised

    monkeypatch.setattr(buried, "failure_of", refuse)
    teller, first, second = Teller(app), Event(), Event()

    teller.fail(message, ValueError("why"), first.set)
    assert first.wait(10)
    teller.fail(message, ValueError("why"), second.set)

    assert second.wait(10)
