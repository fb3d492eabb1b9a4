"""Lines of the log: what a program gives stays, names of ours are ours, and nothing that is logged breaks a line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskapp.log_message import message_of
from taskapp.logs.formatters import LINE_FIELDS, TASK_FIELDS, JSONFormatter, TaskFields, TextFormatter, TraceFields

FORMATTERS: dict[str, Callable[[], logging.Formatter]] = {
    "json": lambda: JSONFormatter(TASK_FIELDS),
    "text": TextFormatter,
}
NAMES = [*TASK_FIELDS, *LINE_FIELDS.values()]


class Broken:
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def record_of(message: object, *args: object, extra: dict[str, Any] | None = None) -> logging.LogRecord:
    logger = logging.getLogger("shop")
    return logger.makeRecord("shop", logging.WARNING, "/srv/shop.py", 7, message, args, None, extra=extra)


def written(record: logging.LogRecord, kind: str = "json") -> Any:
    TaskFields().filter(record)
    line = FORMATTERS[kind]().format(record)
    return json.loads(line) if kind == "json" else line


@pytest.mark.parametrize("name", NAMES)
def test_an_extra_field_that_is_called_as_one_of_ours_is_kept_beside_it(name: str) -> None:
    plain = written(record_of("hello"))
    line = written(record_of("hello", extra={name: "mine"}))

    assert line[f"extra_{name}"] == "mine"
    assert {**line, "time": ""} == {**plain, "time": "", f"extra_{name}": "mine"}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_holds_for_a_message_that_is_a_dict(name: str) -> None:
    line = written(record_of({name: "mine", "other": 1}))

    assert (line[f"extra_{name}"], line["other"]) == ("mine", 1)
    assert line["level"] == "WARNING" or name == "level"


@pytest.mark.parametrize("name", TASK_FIELDS)
def test_handlers_of_others_find_an_extra_field_under_its_name(name: str) -> None:
    record = record_of("hello", extra={name: "mine"})
    for _ in range(2):  # two handlers
        TaskFields().filter(record)

    assert getattr(record, name) == "mine"
    assert written(record)[f"extra_{name}"] == "mine"


def test_traces_are_fields_of_ours_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = TraceFields.__new__(TraceFields)
    logging.Filter.__init__(fields)
    fields._ids = lambda: ("trace", "span")
    record = record_of("hello", extra={"trace_id": "mine"})
    fields.filter(record)

    line = written(record)
    assert (line["trace_id"], line["extra_trace_id"], line["span_id"]) == ("trace", "mine", "span")


@pytest.mark.parametrize("kind", FORMATTERS)
@pytest.mark.parametrize(
    ("message", "args"),
    [("bad %d", ("text",)), ("bad", (1,)), ("%s %s", (1,)), ("%(a)s", ({"b": 1},)), ("%s", (Broken(),)), ("%y", (1,))],
)
def test_a_message_that_does_not_fit_its_arguments_is_one_line_that_names_its_place(
    message: str, args: tuple[object, ...], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATTERS[kind]())
    handler.addFilter(TaskFields())

    handler.handle(record_of(message, *args))

    [line] = capsys.readouterr().err.splitlines()
    assert "/srv/shop.py:7" in line
    assert repr(message) in (json.loads(line)["message"] if kind == "json" else line)
    assert message_of(record_of(message, *args)) in (json.loads(line)["message"] if kind == "json" else line)


def test_what_is_wrong_with_a_message_is_said_briefly() -> None:
    assert message_of(record_of("bad %d", "x" * 10_000)) == (
        f"log message 'bad %d' does not match ('{'x' * 197}…: TypeError: %d format: a real number is required, not str "
        "(/srv/shop.py:7)"
    )


@pytest.mark.parametrize("value", [{(1, 2): 3}, Broken(), {1, 2}, b"\xff", object(), float("nan")])
def test_a_value_that_json_cannot_hold_breaks_no_line(value: object) -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle

    line = written(record_of("hello", extra={"odd": value, "circle": circle, "fine": 1}))

    assert (line["message"], line["fine"]) == ("hello", 1)
    assert "odd" in line


@given(st.text())
def test_every_line_stands_alone(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as error:
        record = record_of("said %s", text)
        record.exc_info = type(error), error, error.__traceback__
    record.stack_info = text
    first, *others = written(record, "text").split("\n")

    assert first.partition(" said ")[1]
    assert all(line.startswith("    ") and line.replace("\t", "").isprintable() for line in others)
    TaskFields().filter(record)
    raw = JSONFormatter(TASK_FIELDS).format(record)
    assert raw.isascii()
    assert raw.isprintable()
