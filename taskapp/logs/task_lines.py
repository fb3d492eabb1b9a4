"""The two lines that a node logs for each task at INFO, received and succeeded, at a fraction of the cost of a record.

If only taskapp's own handler would see the record, no record is made: its content is kept and written together with
later lines. Otherwise the logger is called as usual, so that every handler gets a record at once, on this thread.

Lines are written before they matter: a received line before its task's code runs, a succeeded line before the end of
its task is sent to the broker. However the process ends, every task whose end is recorded has its lines; a task whose
end is not recorded runs again and is logged again.
"""

from __future__ import annotations

import logging
from operator import attrgetter
from time import time
from typing import Any

from taskapp.background import in_child
from taskapp.logs.formatters import OUTSIDE, TaskLine
from taskapp.logs.guarded import GuardedLogger
from taskapp.logs.handlers import FileHandler, Handler, LineHandler

_HANDLERS = (LineHandler, FileHandler)
_PLAIN = (logging.Logger, GuardedLogger)
_ways = attrgetter("info", "makeRecord", "handle", "callHandlers")
_WAYS = _ways(logging.Logger)
_ARE_STOCK = all(way.__code__.co_filename == logging.addLevelName.__code__.co_filename for way in _WAYS)
"""Whether logging's methods were its own when this was imported; error trackers replace them."""
SEEN_SECONDS = 0.005
"""How long loggers and handlers are assumed to be unchanged."""
_place = attrgetter("handlers", "propagate", "parent")


class _Route:
    """The handlers that would see a record of one logger at INFO."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._seen: list[tuple[logging.Logger, tuple[Any, ...]]] = []
        handlers: list[logging.Handler] = []
        at: logging.Logger | None = logger
        while at is not None:
            self._seen.append((at, (list(at.handlers), at.propagate, at.parent)))
            handlers += at.handlers
            at = at.parent if at.propagate else None
        self._only_one = _only_one(handlers) if _ARE_STOCK and type(logger) in _PLAIN else None
        self.handler: Handler | None = None
        """taskapp's handler, if it alone would see the record and its format is unchanged."""
        self.seen_at = 0.0

    def is_current(self) -> bool:
        """Return whether the loggers and their handlers are still the same."""
        return all(_place(logger) == place for logger, place in self._seen)

    def look(self, now: float) -> None:
        """Update ``handler``."""
        self.seen_at, handler = now, self._only_one
        is_usual = (
            handler is not None and not self._logger.filters and _ways(logging.Logger) == _WAYS
            and logging.getLogRecordFactory() is logging.LogRecord and handler.is_usual(logging.INFO)
        )  # fmt: skip
        self.handler = handler if is_usual else None


def _only_one(handlers: list[logging.Handler]) -> Handler | None:
    # Celery's loggers have a NullHandler each.
    heard = [
        each for each in handlers
        if type(each) is not logging.NullHandler and not getattr(each, "skips_task_lines", False)
    ]  # fmt: skip
    if len(heard) == 1 and type(heard[0]) in _HANDLERS:
        return heard[0]  # type: ignore[return-value]  # one of these
    return None


class TaskLines:
    """Logs the lines of tasks in this process."""

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Start over in a new process."""
        self.is_batching = False
        """Whether lines may be kept. Set by a node, which calls ``before_run``, and ``write`` before it settles."""
        self._routes: dict[logging.Logger, _Route] = {}
        self._writer: Any = None
        self._unwritten: set[str] = set()
        """Ids of tasks whose received line is not written yet."""

    def received(self, logger: logging.Logger, template: str, context: dict[str, Any], *, may_wait: bool) -> None:
        """Log a received message, on the loop's thread; ``context`` fills ``template``; it must not change."""
        if self._log(logger, template, context, OUTSIDE, may_wait):
            self._unwritten.add(context["id"])

    def succeeded(
        self, logger: logging.Logger, template: str, context: dict[str, Any], fields: tuple[Any, ...], *, may_wait: bool
    ) -> None:
        """Log, within a run, that it succeeded; ``fields`` are the values of ``TASK_FIELDS``."""
        self._log(logger, template, context, fields, may_wait)

    def before_run(self, task_id: str) -> None:
        """Write the kept lines if the received line of ``task_id`` is one of them."""
        if task_id in self._unwritten:
            self.write()

    def write(self) -> None:
        """Write all kept lines."""
        if self._writer is None or not self._writer.has_unwritten:
            return
        unwritten = tuple(self._unwritten)
        self._writer.drain()
        self._unwritten.difference_update(unwritten)

    def _log(
        self, logger: logging.Logger, template: str, context: dict[str, Any], fields: tuple[Any, ...], may_wait: bool  # noqa: FBT001
    ) -> bool:  # fmt: skip
        """Log a line; return whether it is kept."""
        now = time()
        route = self._routes.get(logger)
        if route is None or not route.seen_at <= now < route.seen_at + SEEN_SECONDS:
            if route is None or not route.is_current():
                route = self._routes[logger] = _Route(logger)
            route.look(now)
        handler = route.handler
        if handler is None or (writer := handler.writer) is None:
            logger.info(template, context, extra={"data": context})
            return False
        line = _made, (handler, (now, logger.name, template, context, fields))
        if not (may_wait and self.is_batching):
            writer.write(line)
            return False
        self._writer = writer
        writer.add(line)
        return True


def _made(what: tuple[Handler, tuple[Any, ...]]) -> bytes:
    handler, line = what
    formatter: Any = handler.formatter
    try:
        text = formatter.task_line(line)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a value that JSON cannot represent, or a template that does not fit
        return handler.line_of(TaskLine(*line).record())
    return f"{text}{handler.terminator}".encode(handler.encoding or "utf-8", "backslashreplace")


task_lines = TaskLines()
in_child(task_lines.start_over)
