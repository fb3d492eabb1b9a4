"""Guards the node's own log lines against the project's handlers, filters, formatters and record factories.

These run wherever the node logs: on its event loop, on its heartbeat's thread, between a run and its settlement. What
they raise there ends nothing: taskapp's own handlers still get the line, and the culprit is named once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from taskapp.errors.wording import in_words, sound
from taskapp.logs.formatters import Context
from taskapp.logs.handlers import FileHandler, Handler, LineHandler

MACHINERY = (
    "amqp", "asyncio", "billiard", "celery", "concurrent", "kombu", "multiprocessing", "opentelemetry", "py", "redis",
    "taskapp", "vine",
)  # fmt: skip
"""First parts of the names of the loggers that a node uses for itself; what others raise concerns their callers."""
OF_LOGGING = ("logging", "taskapp.logs.")
CULPRITS_MOST = 100
"""How many places that raised are remembered, so that each is reported once."""

_passes: Callable[[BaseException], bool] = lambda _: False  # noqa: E731 - replaced by ``guard_loggers``
_named: set[str] = set()


class GuardedLogger(logging.Logger):
    """A logger that survives what the project's code raises, if its name belongs to the node."""

    def makeRecord(  # noqa: N802 - the name is logging's
        self, name: str, level: int, fn: str, lno: int, msg: Any, args: Any, exc_info: Any, func: str | None = None,
        extra: Mapping[str, Any] | None = None, sinfo: str | None = None,
    ) -> logging.LogRecord:  # fmt: skip
        """Return a record; if the project's record factory raises, a stock record."""
        try:
            return super().makeRecord(name, level, fn, lno, msg, args, exc_info, func, extra, sinfo)
        except BaseException as error:
            if self._raises(error):
                raise
            _report(self, error)
        record = logging.LogRecord(name, level, fn, lno, msg, args, exc_info, func, sinfo)
        record.__dict__ = {**(extra or {}), **record.__dict__}
        return record

    def filter(self, record: logging.LogRecord) -> Any:
        """Return whether to log ``record``: not if a filter raises, because it may hide secrets."""
        try:
            return super().filter(record)
        except BaseException as error:
            if self._raises(error):
                raise
            _report(self, error)
        return False

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Pass ``record`` to the handlers; if one raises, at least to taskapp's own."""
        try:
            super().callHandlers(record)
        except BaseException as error:
            if self._raises(error):
                raise
            raised = error
        else:
            return
        for handler in _own_handlers(self):
            if record.levelno >= handler.level and handler not in Context.of(record).handlers:
                with suppress(BaseException):
                    handler.handle(record)
        _report(self, raised)

    def _raises(self, error: BaseException) -> bool:
        """Return whether to raise ``error``, which concerns the caller."""
        return self.name.partition(".")[0] not in MACHINERY or _passes(error)


def guard_loggers(passes: Callable[[BaseException], bool]) -> None:
    """Guard the node's loggers, existing and future ones, except those of a class of their own.

    Args:
        passes: Returns whether an exception is meant for the code that logs, such as a time limit that interrupts it.
    """
    global _passes
    _passes = passes
    for logger in tuple(logging.Logger.manager.loggerDict.values()):
        if type(logger) is logging.Logger and logger.name.partition(".")[0] in MACHINERY:
            logger.__class__ = GuardedLogger
    if logging.getLoggerClass() is logging.Logger:
        logging.setLoggerClass(GuardedLogger)


def _own_handlers(logger: logging.Logger | None) -> Iterator[Handler]:
    while logger is not None:
        yield from (each for each in tuple(logger.handlers) if isinstance(each, LineHandler | FileHandler))
        logger = logger.parent if logger.propagate else None


def _report(logger: logging.Logger, error: BaseException) -> None:
    """Name the code that raised ``error``, in the log itself."""
    error = sound(error)
    place = _place_of(error.__traceback__)
    if place in _named or len(_named) >= CULPRITS_MOST:
        return
    _named.add(place)
    text = (
        f"{in_words(error)}, raised by a log handler or filter in {place}: the node continues, other "
        "handlers may lack lines, and it is not reported again; fix that handler or filter"
    )
    with suppress(BaseException):
        for handler in _own_handlers(logger):
            handler.warn(text)
            return
        sys.__stderr__.write(f"{text}\n")  # type: ignore[union-attr]  # if it is None, too


def _place_of(traceback: TracebackType | None) -> str:
    """Return the place in the project's code that logging called."""
    place = "an unknown place"
    while traceback is not None:
        frame, code = traceback.tb_frame, traceback.tb_frame.f_code
        place = f"{code.co_qualname} ({code.co_filename}:{code.co_firstlineno})"
        if not str(frame.f_globals.get("__name__")).startswith(OF_LOGGING):
            return place
        traceback = traceback.tb_next
    return place
