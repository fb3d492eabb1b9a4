"""Whose format a log line has: the project's, where it has chosen one, otherwise taskapp's."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator

import pytest

from taskapp import Celery
from taskapp.app.remarks import remarks_on
from taskapp.logs.formatters import JSONFormatter, TextFormatter

SetUp = Callable[..., logging.Logger]
TASKS = {"worker_task_log_format": "TASKS %(message)s"}
OTHERS = {"worker_log_format": "OTHERS %(message)s"}


def project(**settings: object) -> Celery:
    return Celery("formats", broker="redis://127.0.0.1:1/0", set_as_current=False, **settings)


@pytest.fixture
def set_up() -> Iterator[SetUp]:
    """Set up a logger of an app as Celery does; what it writes is ``logger.handlers[-1].stream``."""
    made: list[logging.Logger] = []

    def logger_of(app: Celery, *, tasks: bool = False, own: logging.Handler | None = None) -> logging.Logger:
        logger = logging.getLogger("celery.task" if tasks else "formats")
        made.append(logger)
        logger.handlers = [own] if own else []
        if tasks:
            app.log.setup_task_loggers("INFO", io.StringIO(), colorize=False)
        else:
            app.log.setup_handlers(logger, io.StringIO(), app.log.format, False, datefmt=app.log.datefmt)
        return logger

    yield logger_of
    for logger in made:
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("tasks", [False, True], ids=["others", "tasks"])
def test_lines_have_the_format_of_taskapp_by_default(set_up: SetUp, tasks: bool) -> None:
    handler = set_up(project(), tasks=tasks).handlers[-1]

    assert isinstance(handler.formatter, TextFormatter)
    assert handler.filters


@pytest.mark.parametrize("tasks", [False, True], ids=["others", "tasks"])
@pytest.mark.parametrize("settings", [{}, TASKS | OTHERS], ids=["default", "chosen"])
def test_handlers_of_the_project_stay_as_they_are(set_up: SetUp, tasks: bool, settings: dict[str, str]) -> None:
    own = logging.StreamHandler(io.StringIO())
    own.setFormatter(formatter := logging.Formatter("MINE %(message)s"))

    handlers = set_up(project(**settings), tasks=tasks, own=own).handlers

    assert handlers == [own]
    assert (own.formatter, own.filters) == (formatter, [])


@pytest.mark.parametrize(
    ("settings", "tasks", "line"),
    [
        (OTHERS, False, "OTHERS hello\n"),
        (TASKS, True, "TASKS hello\n"),
        ({"worker_log_format": "%(asctime)s %(message)s", "worker_log_datefmt": "the time"}, False, "the time hello\n"),
        ({"worker_task_log_format": "%(asctime)s %(task_id)s %(message)s", "worker_task_log_datefmt": "the time"},
         True, "the time ??? hello\n"),
    ],
)  # fmt: skip
def test_lines_have_the_format_that_the_project_has_chosen(
    set_up: SetUp, settings: dict[str, str], tasks: bool, line: str
) -> None:
    logger = set_up(project(**settings), tasks=tasks)

    logger.warning("hello")

    handler = logger.handlers[-1]
    assert isinstance(handler, logging.StreamHandler)
    assert handler.stream.getvalue() == line


@pytest.mark.parametrize(("settings", "tasks"), [(OTHERS, True), (TASKS, False)], ids=["tasks", "others"])
def test_the_format_of_other_lines_is_taskapps(set_up: SetUp, settings: dict[str, str], tasks: bool) -> None:
    handler = set_up(project(**settings), tasks=tasks).handlers[-1]

    assert isinstance(handler.formatter, TextFormatter)


def test_json_that_is_asked_for_goes_first_and_this_is_said(set_up: SetUp) -> None:
    app = project(taskapp_log_format="json", **OTHERS)

    handler = set_up(app).handlers[-1]

    assert isinstance(handler.formatter, JSONFormatter)
    assert [(remark.setting, remark.text) for remark in remarks_on(app)] == [
        ("worker_log_format", "TASKAPP_LOG_FORMAT asks for lines in JSON")
    ]
