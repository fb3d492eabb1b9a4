"""Task types that take their messages in a way of their own (``Task.Strategy``), as ``celery-batches`` does.

Such a strategy keeps messages as long as it likes and gives the pool functions of its own to run. Its messages have
slots of their own, so that what it keeps holds up no other type.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from celery.utils.imports import symbol_by_name

from taskapp.errors.tasks import StrategyCannotRun
from taskapp.transport.message import Received

STOCK = "celery.worker.strategy:default"
OURS = "taskapp.worker.consume.strategy:Strategy"


def has_own_strategy(task: Any) -> bool:
    """Return whether neither our strategy nor Celery's handles the messages of a type."""
    return _strategy_of(task) is None


def strategy_of(task: Any) -> Any:
    """Return the strategy class that handles a type's messages: ours, or one derived from it."""
    return _strategy_of(task) or symbol_by_name(OURS)


def _strategy_of(task: Any) -> Any:
    """Return our strategy class, or one derived from it; ``None`` for any other."""
    given = task.Strategy
    ours = symbol_by_name(OURS)
    if given in (OURS, STOCK):
        return ours
    found = symbol_by_name(given)
    if found is symbol_by_name(STOCK):
        return ours
    return found if isinstance(found, type) and issubclass(found, ours) else None


def check_strategy(task: Any) -> None:
    """Refuse a type whose own strategy cannot run its tasks.

    Raises:
        StrategyCannotRun: They are coroutines, or are to run in a child process.
    """
    if has_own_strategy(task):
        if iscoroutinefunction(task.run):
            raise StrategyCannotRun(task.name, task.Strategy, "an `async def`", "make it a plain function")
        if task.cpu_bound:
            raise StrategyCannotRun(task.name, task.Strategy, "`cpu_bound=True`", "run it with -P prefork, without it")


class Kept:
    """Claimed messages that strategies of their own took and that are not settled yet."""

    def __init__(self) -> None:
        self._messages: list[Received] = []

    def add(self, message: Received) -> None:
        """Count ``message`` until it is settled."""
        self._messages.append(message)

    def count(self) -> int:
        """Return how many there are."""
        self._messages = [one for one in self._messages if one.delivery_tag in one.channel.process.node.held]
        return len(self._messages)


def counting(handle: Callable[..., Any], kept: Kept | None) -> Callable[..., Any]:
    """Return ``handle``, a strategy's handler of messages, with what it takes counted in ``kept``."""
    if kept is None:
        return handle

    def counted(message: Any, *args: Any, **options: Any) -> Any:
        if isinstance(message, Received):
            kept.add(message)
        return handle(message, *args, **options)

    return counted
