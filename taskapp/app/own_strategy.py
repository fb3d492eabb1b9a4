"""Task types with their own way of handling messages (``Task.Strategy``), such as ``celery-batches``.

Such a strategy keeps messages for as long as it likes and passes its own functions to the pool. Its messages have
separate slots, so that those it keeps do not block other task types.
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
    """Return whether neither taskapp's nor Celery's strategy handles the messages of a task type."""
    return _strategy_of(task) is None


def strategy_of(task: Any) -> Any:
    """Return the strategy class that handles a type's messages: taskapp's, or one derived from it."""
    return _strategy_of(task) or symbol_by_name(OURS)


def _strategy_of(task: Any) -> Any:
    """Return taskapp's strategy class, or one derived from it; ``None`` for any other."""
    given = task.Strategy
    ours = symbol_by_name(OURS)
    if given in (OURS, STOCK):
        return ours
    found = symbol_by_name(given)
    if found is symbol_by_name(STOCK):
        return ours
    return found if isinstance(found, type) and issubclass(found, ours) else None


def check_strategy(task: Any) -> None:
    """Check that a type's own strategy can run its tasks.

    Raises:
        StrategyCannotRun: They are coroutines, or must run in a child process.
    """
    if has_own_strategy(task):
        if iscoroutinefunction(task.run):
            raise StrategyCannotRun(task.name, task.Strategy, "an `async def`", "make it a plain function")
        if task.cpu_bound:
            remedy = "remove that and run it with -P prefork"
            raise StrategyCannotRun(task.name, task.Strategy, "`cpu_bound=True`", remedy)


class Kept:
    """Claimed messages that such strategies hold and have not settled yet."""

    def __init__(self) -> None:
        self._messages: list[Received] = []

    def add(self, message: Received) -> None:
        """Count ``message`` until it is settled."""
        self._messages.append(message)

    def count(self) -> int:
        """Return the number of unsettled messages."""
        self._messages = [one for one in self._messages if one.delivery_tag in one.channel.process.node.held]
        return len(self._messages)


def counting(handle: Callable[..., Any], kept: Kept | None) -> Callable[..., Any]:
    """Return a strategy's message handler ``handle`` that counts its messages in ``kept``."""
    if kept is None:
        return handle

    def counted(message: Any, *args: Any, **options: Any) -> Any:
        if isinstance(message, Received):
            kept.add(message)
        return handle(message, *args, **options)

    return counted
