"""Loggers of a node: what a project's handler, filter, formatter or record factory raises costs only its own lines."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from taskapp.execution.coroutines import Stopped
from taskapp.execution.failures import interrupts
from taskapp.logs import guarded
from taskapp.logs.formatters import TaskFields, TextFormatter
from taskapp.logs.guarded import MACHINERY, GuardedLogger, guard_loggers
from taskapp.logs.handlers import LineHandler
from taskapp.logs.task_lines import TaskLines

PLACES = ("handler", "handler first", "filter of the handler", "filter of the logger", "formatter", "record factory")
SHOWN = ("handler", "handler first", "record factory")
"""Where the line itself is written all the same; a filter may hide secrets."""
ERRORS = (SystemExit, KeyboardInterrupt, GeneratorExit, ValueError, RecursionError)


class Breaks(logging.Handler, logging.Filter):
    """Raises as a handler, as a filter and as a record factory."""

    def __init__(self, error: type[BaseException]) -> None:
        logging.Handler.__init__(self)
        self.error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self.error(3)

    def raises(self, *_: Any, **__: Any) -> Any:
        raise self.error(3)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TextIOWrapper]:
    with (tmp_path / "log").open("w+") as stream:
        yield stream


@pytest.fixture
def logger(log: TextIOWrapper) -> Iterator[logging.Logger]:
    name, kind = "taskapp.guarded_in_a_test", logging.getLoggerClass()
    logger, factory = logging.getLogger(name), logging.getLogRecordFactory()
    handler = LineHandler(log)
    handler.use(TextFormatter(), [TaskFields()])
    logger.addHandler(handler)
    logger.propagate = False
    guarded._named.clear()
    before = {each: each.__class__ for each in _loggers()}
    guard_loggers(interrupts)
    logger.setLevel("INFO")
    yield logger
    logging.setLoggerClass(kind)
    logging.setLogRecordFactory(factory)
    for each in _loggers():
        each.__class__ = before.get(each, kind)
    del logging.Logger.manager.loggerDict[name]


def _loggers() -> list[Any]:
    return [each for each in logging.Logger.manager.loggerDict.values() if isinstance(each, logging.Logger)]


def break_(logger: logging.Logger, place: str, error: type[BaseException]) -> None:
    breaks: Any = Breaks(error)
    match place:
        case "handler":
            logger.addHandler(breaks)
        case "handler first":
            logger.handlers.insert(0, breaks)
        case "filter of the handler":
            logger.handlers[0].addFilter(breaks.raises)
        case "filter of the logger":
            logger.addFilter(breaks.raises)
        case "formatter":
            breaks.format = breaks.raises
            logger.handlers[0].setFormatter(breaks)
        case "record factory":
            logging.setLogRecordFactory(breaks.raises)


def written(log: TextIOWrapper) -> list[str]:
    return [line.rpartition("MainProcess ")[2] for line in Path(log.name).read_text().splitlines()]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", PLACES)
def test_what_they_raise_is_named_once_and_ends_nothing(
    logger: logging.Logger, log: TextIOWrapper, place: str, error: type[BaseException]
) -> None:
    break_(logger, place, error)

    for number in range(3):
        logger.warning("line %d", number, extra={"number": number})

    lines = written(log)
    own = [line for line in lines if line.startswith("line")]
    assert own == (["line 0", "line 1", "line 2"] if place in SHOWN else [])
    if (place, error) == ("formatter", ValueError):
        return  # logging itself reports that on stderr
    (report,) = (line for line in lines if not line.startswith("line"))
    culprit = "Breaks.emit" if place.startswith("handler") else "Breaks.raises"
    assert report.startswith(f"{error.__name__}: 3, raised by a log handler or filter in {culprit} ({__file__}:")
    assert report.endswith("fix that handler or filter")


@pytest.mark.parametrize("error", [SystemExit, ValueError])
@pytest.mark.parametrize("place", ["handler first", "filter of the logger"])
def test_the_lines_of_tasks_are_guarded_and_kept_as_any_other(
    logger: logging.Logger, log: TextIOWrapper, place: str, error: type[BaseException]
) -> None:
    lines = TaskLines()
    lines.received(logger, "Task %(id)s received", {"id": "1"}, may_wait=False)
    assert written(log) == ["Task 1 received"]
    break_(logger, place, error)
    lines._routes.clear()

    lines.received(logger, "Task %(id)s received", {"id": "2"}, may_wait=False)

    assert ("Task 2 received" in written(log)) == (place in SHOWN)


@pytest.mark.parametrize("error", [Stopped, SoftTimeLimitExceeded])
@pytest.mark.parametrize("place", ["handler", "filter of the logger", "record factory"])
def test_a_time_limit_that_ends_in_a_handler_is_still_raised(
    logger: logging.Logger, place: str, error: type[BaseException]
) -> None:
    break_(logger, place, error)

    with pytest.raises(error):
        logger.warning("line")


@pytest.mark.usefixtures("logger")
def test_loggers_of_the_project_raise_as_ever() -> None:
    project = logging.getLogger("shop.guarded_in_a_test")
    project.propagate = False
    break_(project, "handler", KeyboardInterrupt)

    with pytest.raises(KeyboardInterrupt):
        project.warning("line")


@pytest.mark.usefixtures("logger")
@pytest.mark.parametrize("part", MACHINERY)
def test_existing_and_new_loggers_of_the_machinery_are_guarded(part: str) -> None:
    assert type(logging.getLogger(f"{part}.made_in_a_test")) is GuardedLogger
    assert type(logging.getLogger(part)) is GuardedLogger
