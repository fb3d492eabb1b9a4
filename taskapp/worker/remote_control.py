"""Checks the arguments of remote-control commands that change a node's state, and guards all commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from math import isfinite
from typing import Any

from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.utils.saferepr import saferepr
from celery.worker import control as stock

from taskapp.client.control import NAMING, texts_of_ids
from taskapp.engine.envelope import LONGEST_NAME_BYTES
from taskapp.execution import forked
from taskapp.execution.failures import as_error
from taskapp.execution.side_loop import is_green

# The stubs are incomplete.
_stock: Any = stock

LIMIT_MOST_SECONDS = 100 * 365 * 86_400
SLOTS_MOST = 100_000
RATE_MOST = 1e9
SHOWN_MOST = 100


def install() -> None:
    """Wrap Celery's commands with the checks."""
    _check("time_limit", lambda soft=None, hard=None, **_: _problem_of_seconds(soft=soft, hard=hard))
    _check("pool_grow", lambda n=1, **_: _problem_of_slots(n))
    _check("pool_shrink", lambda pool, n=1, **_: _problem_of_slots(n) or _problem_of_too_few(pool, n))
    for name in ("revoke", "terminate", "query_task"):
        _check(name, lambda **_: "")
    for name in ("add_consumer", "cancel_consumer"):
        _check(name, lambda queue=None, **_: _problem_of_queue(queue))
    _check("rate_limit", lambda rate_limit=None, **_: _problem_of_rate(rate_limit))
    for name, command in _stock.Panel.data.items():
        _stock.Panel.data[name] = _guarded(command)


def _guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``command``, whose errors may end no node: it may be a project's own, or call a project's classes."""
    if getattr(command, "is_guarded", False):
        return command

    @wraps(command)
    def guarded(*args: Any, **given: Any) -> Any:
        try:
            return forked.confined(command, *args, **given)
        except (WorkerShutdown, WorkerTerminate):
            raise
        except BaseException as raised:
            if (error := as_error(raised)) is raised:
                raise
            raise error from error.__cause__  # not from ``raised``, which may be unreadable

    guarded.is_guarded = True  # type: ignore[attr-defined]
    return guarded


def _check(name: str, problem_of: Callable[..., str]) -> None:
    command = _stock.Panel.data[name]
    if getattr(command, "is_checked", False):
        return

    @wraps(command)
    def checked(state: Any, *args: Any, **given: Any) -> Any:
        given = {key: texts_of_ids(value) if key in NAMING else value for key, value in given.items()}
        problem = problem_of(**{**given, "pool": state.consumer.pool})
        return _stock.nok(problem) if problem else command(state, *args, **given)

    checked.is_checked = True  # type: ignore[attr-defined]
    _stock.Panel.data[name] = checked


def _problem_of_seconds(**limits: Any) -> str:
    for name, seconds in limits.items():
        if seconds is None or (_is_number(seconds) and 0 <= seconds <= LIMIT_MOST_SECONDS):
            continue
        return f"{name} is {seconds!r}; give a number of seconds, 0 or more"
    return ""


def _problem_of_slots(n: Any) -> str:
    is_fine = isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= SLOTS_MOST
    return "" if is_fine else f"n is {n!r}; give a number from 0 to {SLOTS_MOST}"


def _problem_of_too_few(pool: Any, n: int) -> str:
    """Green pools without a slot block the whole node, which then reads no command to grow again."""
    if not is_green() or n < pool.limit:
        return ""
    return f"n is {n}; this node has {pool.limit} slots and needs at least one"


def _problem_of_queue(queue: Any) -> str:
    is_fine = isinstance(queue, str) and 0 < len(queue.encode(errors="replace")) <= LONGEST_NAME_BYTES
    return "" if is_fine else f"queue is {saferepr(queue, SHOWN_MOST)}; give the name of a queue"


def _problem_of_rate(rate: Any) -> str:
    number = rate.split("/")[0] if isinstance(rate, str) else rate
    try:
        is_fine = number in (None, "") or (not isinstance(number, bool) and 0 <= float(number) <= RATE_MOST)
    except (TypeError, ValueError):
        is_fine = False
    return "" if is_fine else f"rate_limit is {rate!r}; give a number of tasks per second, or a string such as '100/m'"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
