"""How Celery sets up logging in taskapp's processes."""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery.app import log as stock

from taskapp import tracing
from taskapp.logs.formatters import TaskFields, TraceFields, formatter
from taskapp.logs.handlers import FileHandler, LineHandler
from taskapp.settings import Settings

TASK_LOGGER = "celery.task"
"""Parent of the loggers that ``get_task_logger`` returns."""
OWN_FORMAT = ("worker_log_format", "worker_log_datefmt")
"""Celery's settings for the format of all other lines."""

_Stock: Any = stock.Logging  # the stubs lack half of it


class Logging(_Stock):
    """Sets up the app's loggers like Celery, with taskapp's handlers and format. Celery's signals follow."""

    def setup_handlers(self, logger: logging.Logger, *args: Any, **options: Any) -> logging.Logger:
        """Add a handler to ``logger``, unless the project has given it some, which stay as they are."""
        before = tuple(logger.handlers)
        super().setup_handlers(logger, *args, **options)
        own_format = self._has_own_format(logger)
        for handler in logger.handlers:
            if handler not in before and not own_format:
                use_format(handler, self.app.settings)
        return logger

    def _has_own_format(self, logger: logging.Logger) -> bool:
        """Return whether the project has chosen the format of ``logger``'s lines, and JSON is not asked for."""
        of_tasks = logger.name == TASK_LOGGER
        names = ("worker_task_log_format", "worker_task_log_datefmt") if of_tasks else OWN_FORMAT
        return self.app.settings.log_format == "text" and any(self.app.sets(name) for name in names)

    def _detect_handler(self, logfile: Any = None) -> logging.Handler:
        """Return the handler for a file's path, a stream, or ``None``: stderr."""
        target: Any = sys.__stderr__ if logfile is None else logfile
        if hasattr(target, "write"):
            return LineHandler(target)
        return FileHandler(str(target))


def use_format(handler: logging.Handler, settings: Settings) -> None:
    """Make a handler that Celery has just created use taskapp's format. Level, file and color options stay Celery's."""
    filters: list[logging.Filter] = [TaskFields(), *([TraceFields()] if tracing.is_on(settings) else ())]
    if isinstance(handler, LineHandler | FileHandler):
        handler.use(formatter(settings.log_format), filters)
        return
    handler.setFormatter(formatter(settings.log_format))
    for each in filters:
        handler.addFilter(each)
