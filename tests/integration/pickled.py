"""A project whose tasks have arguments that JSON cannot represent."""

from __future__ import annotations

import os
from typing import Any

from taskapp import Celery

app = Celery(
    "pickled", broker=os.environ["PROJ_BROKER"], task_serializer="pickle", accept_content=["pickle", "json"],
    result_serializer=os.environ.get("PROJ_RESULTS", "json"), set_as_current=False,
)  # fmt: skip


@app.task(shared=False)
def largest(values: Any, *more: Any) -> Any:
    return max({*values, *more})


@app.task(shared=False, cpu_bound=True)
def in_child(values: Any) -> Any:
    return type(values).__name__


@app.task(bind=True, shared=False)
def again(self: Any, values: Any) -> Any:
    if not self.request.retries:
        raise self.retry(countdown=0.05)
    return type(values).__name__


@app.task(bind=True, shared=False)
def with_follow_ups(self: Any, values: Any) -> Any:
    raise self.replace(largest.s(values) | largest.s({1}) if isinstance(values, list) else largest.s(values))


@app.task(shared=False)
def all_in(parts: Any, allowed: Any) -> Any:
    return [type(allowed).__name__, *sorted(part for part in parts if part in allowed)]
