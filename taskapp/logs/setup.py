"""How Celery sets up logging in taskapp's processes."""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery.app import log as stock

from taskapp import tracing
from taskapp.logs.formatters import TaskFields, TraceFields, formatter
from taskapp.logs.handlers import FileHandler, LineHandler
from taskapp.settings import get_settings

POOL_LOGGER = "multiprocessing"
"""Name of billiard's logger."""

_Stock: Any = stock.Logging  # the stubs lack half of it


class Logging(_Stock):
    """Sets up the app's loggers like Celery, with taskapp's handlers and format. Celery's signals follow."""

    def setup_handlers(self, logger: logging.Logger, *args: Any, **options: Any) -> logging.Logger:
        """Add handlers to ``logger``, unless it has some, and set their format."""
        super().setup_handlers(logger, *args, **options)
        format_handlers(logger)
        return logger

    def _detect_handler(self, logfile: Any = None) -> logging.Handler:
        """Return the handler for a file's path, a stream, or ``None``: stderr."""
        target: Any = sys.__stderr__ if logfile is None else logfile
        if hasattr(target, "write"):
            return LineHandler(target)
        return FileHandler(str(target))


def format_handlers(logger: logging.Logger) -> None:
    """Make ``logger``, which Celery has set up, use taskapp's format. Level, file and color options stay Celery's."""
    settings = get_settings()
    # Billiard's logger has its own handlers, for which Celery sends no signal.
    for handler in {*logger.handlers, *logging.getLogger(POOL_LOGGER).handlers}:
        filters: list[logging.Filter] = [TaskFields(), *([TraceFields()] if tracing.is_on(settings) else ())]
        if isinstance(handler, LineHandler | FileHandler):
            handler.use(formatter(settings.log_format), filters)
            continue
        handler.setFormatter(formatter(settings.log_format))
        for each in filters:
            handler.addFilter(each)
