"""A run that is stopped may go on for a while: a coroutine cleans up, a thread is in C code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from taskapp.transport.limits_header import is_limited
from taskapp.worker.pool.jobs import Call


def ends_first(headers: Mapping[str, Any], find_call: Callable[[], Any] | None, report: Callable[[], Any]) -> bool:
    """Stop the run of a task with limits; return whether ``report`` will be called once it has ended.

    Its slots and its unique key are free when its claim is settled, and others run then.
    """
    if find_call is None or not is_limited(headers):
        return False
    call = find_call()
    return isinstance(call, Call) and call.stop_then(report)
