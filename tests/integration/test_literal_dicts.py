"""A web user's JSON that looks like a type reaches a task, and comes back, as the dict it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from tests.support import Process

KINDS = [
    {"__type__": "datetime", "__value__": "2020-01-01T00:00:00"}, {"__type__": "bytes", "__value__": "abc"},
    {"__type__": "uuid", "__value__": {"hex": "0" * 32, "version": 4}}, {"__type__": "decimal", "__value__": "x"},
    {"__type__": "nosuch", "__value__": {"__type__": "date", "__value__": [1]}},
]  # fmt: skip
JOBS = """
from taskapp.celery import app

@app.task(name="literal.same")
def same(*args, **kwargs):
    return [list(args), kwargs]

@app.task(name="literal.first")
def first(value): return value

@app.task(name="literal.again", bind=True)
def again(self, value, **kwargs):
    if not self.request.retries:
        raise self.retry(countdown=0)
    return [value, kwargs]

@app.task(name="literal.raises")
def raises(value): raise ValueError(value)
"""


@pytest.mark.parametrize("pool", ["default", "prefork"])
def test_dicts_that_look_like_types_arrive_and_return_as_dicts(
    app: Celery, worker: Callable[..., Process], tmp_path: Path, pool: str
) -> None:
    (tmp_path / "literal_jobs.py").write_text(JOBS)
    worker(*(() if pool == "default" else ("-P", pool)), TASKAPP_INCLUDE="literal_jobs")

    def job(name: str, *args: Any, **kwargs: Any) -> Any:
        return app.signature(f"literal.{name}", args, kwargs)

    sent = {
        "by name and position": (job("same", KINDS, deep={"x": KINDS}), [[KINDS], {"deep": {"x": KINDS}}]),
        "compressed": (job("same", KINDS).set(compression="zlib"), [[KINDS], {}]),
        "delayed": (job("same", KINDS).set(countdown=0.2), [[KINDS], {}]),
        "a retry": (job("again", KINDS, more=KINDS), [KINDS, {"more": KINDS}]),
        "a chain": (
            chain(job("first", KINDS), job("first"), job("same", more=KINDS[0])),
            [[KINDS], {"more": KINDS[0]}],
        ),
        "a group": (group(job("first", kind) for kind in KINDS), KINDS),
        "a chord": (chord([job("first", kind) for kind in KINDS], job("same", more=KINDS)), [[KINDS], {"more": KINDS}]),
    }
    results = {name: signature.apply_async() for name, (signature, _) in sent.items()}

    assert {name: result.get(timeout=30) for name, result in results.items()} == {
        name: expected for name, (_, expected) in sent.items()
    }
    with pytest.raises(ValueError, match="__type__") as caught:
        job("raises", KINDS[0]).delay().get(timeout=20)
    assert caught.value.args == (KINDS[0],)
