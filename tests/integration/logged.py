"""Task types for tests of a node's log: short ones by the thousand, and ones that end their node."""

from __future__ import annotations

import builtins
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from celery import shared_task
from celery.signals import after_setup_logger, setup_logging

HEARD = os.environ.get("LOGGED_HEARD", "")
"""Where a handler of the program's own writes what it hears."""


@shared_task(name="logged.def")
def short(number: int) -> int:
    return number


@shared_task(name="logged.async")
async def short_async(number: int) -> int:
    return number


@shared_task(name="logged.says")
def say(text: str) -> None:
    logging.getLogger("shop").info("%s", text)
    print(f"{text} printed")  # noqa: T201 - as tasks of others do


def _end(way: str) -> None:
    logging.getLogger("shop").info("the last words of %s", way)
    match way:
        case "os._exit":
            os._exit(3)
        case "os.abort":
            os.abort()
        case _:
            # To this process whatever its handlers do.
            os.kill(os.getpid(), signal.Signals[way])
            threading.Event().wait(20)


@shared_task(name="logged.end")
def end(way: str) -> None:
    _end(way)


class Raising(logging.Handler):
    """Raises as a handler and as a filter."""

    def __init__(self, error: str) -> None:
        super().__init__()
        self.error: type[BaseException] = getattr(builtins, error)

    def emit(self, record: logging.LogRecord) -> None:
        raise self.error

    def raises(self, *_: Any, **__: Any) -> Any:
        raise self.error


@shared_task(name="logged.breaks")
def break_logging(place: str, error: str) -> str:
    """Leave a handler, filter or record factory behind that raises, as a test tool or a debugger may."""
    breaks = Raising(error)
    match place:
        case "handlers":
            for name in ("", "celery", "taskapp", "kombu", "celery.app.trace", "celery.worker.strategy"):
                logging.getLogger(name).addHandler(breaks)
        case "filters of handlers":
            for handler in logging.getLogger().handlers:
                handler.addFilter(breaks.raises)
        case "filters of loggers":
            for name in tuple(logging.Logger.manager.loggerDict):
                logging.getLogger(name).addFilter(breaks.raises)
        case "record factory":
            logging.setLogRecordFactory(breaks.raises)
    return "done"


@shared_task(name="logged.silent")
def end_silently() -> None:
    os._exit(3)


@shared_task(name="logged.silent_async")
async def end_silently_async() -> None:
    os._exit(3)


class Hearing(logging.Handler):
    """Writes each record it hears at once, with the name of the thread."""

    def emit(self, record: logging.LogRecord) -> None:
        with Path(HEARD).open("a") as file:
            file.write(f"{threading.current_thread().name}|{record.name}|{record.getMessage()}\n")


def _hear(logger: logging.Logger, **_: object) -> None:
    logger.addHandler(Hearing())


def _set_up(loglevel: int, **_: object) -> None:
    logging.basicConfig(level=loglevel, stream=sys.__stderr__, format="MINE %(name)s %(message)s", force=True)


if HEARD:
    after_setup_logger.connect(_hear, weak=False)
if os.environ.get("LOGGED_SETUP"):
    setup_logging.connect(_set_up, weak=False)
