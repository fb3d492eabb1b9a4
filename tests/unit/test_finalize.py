"""An app that cannot be put together."""

from __future__ import annotations

import pytest

from taskapp.app.application import Celery
from taskapp.app.task import Task
from taskapp.errors.history import UnknownTaskOption


def test_it_says_why_each_time() -> None:
    app = Celery("shop", set_as_current=False, task_cls=Task)

    @app.task(name="shop.pay", shared=False, sensitve=True)
    def pay() -> None: ...

    for _ in range(2):
        with pytest.raises(UnknownTaskOption, match="sensitve"):
            app.tasks["shop.pay"]
    with pytest.raises(UnknownTaskOption):
        app.finalize()


def test_one_that_may_not_be_put_together_yet_may_be_later() -> None:
    app = Celery("shop", set_as_current=False, task_cls=Task, autofinalize=False)
    with pytest.raises(RuntimeError, match="not finalized"):
        _ = app.tasks

    app.finalize()
    assert "celery.chord" in app.tasks
