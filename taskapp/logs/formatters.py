"""Logs as text for people or JSON lines for machines, each line with its task's id and type.

Fields given as ``extra=`` keep their names in the record, for other handlers. In a JSON line taskapp's own names take
precedence: an extra field with such a name is written as ``extra_<name>``.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]  # undocumented
from multiprocessing import current_process
from time import localtime, strftime
from typing import Any, NamedTuple, Self

from celery import current_task
from celery.utils.saferepr import saferepr
from pythonjsonlogger.json import JsonFormatter

from taskapp import tracing
from taskapp.errors.frames import task_frames
from taskapp.log_message import formattable
from taskapp.sanitize import sanitize_json, sanitize_lines
from taskapp.settings import get_settings

TASK_FIELDS = ("task_id", "task_type", "queue", "attempt")
TRACE_FIELDS = ("trace_id", "span_id")
VALUE_MOST = 1_024
"""Maximum length of the text for a value that JSON cannot represent."""

LINE_FIELDS = {"asctime": "time", "levelname": "level", "name": "logger"}
"""Attributes of records and their names in JSON."""


def _encoder() -> Callable[[Any], str]:
    """Return what writes a value exactly as ``json.dumps`` does, which makes an encoder for each call.

    It raises errors for the same values: cycles, and what JSON cannot represent.
    """
    usual = json.JSONEncoder()
    if c_make_encoder is None:
        return usual.encode
    parts = c_make_encoder(
        None, usual.default, encode_basestring_ascii, None, usual.key_separator, usual.item_separator,
        usual.sort_keys, usual.skipkeys, usual.allow_nan,
    )  # fmt: skip

    def encode(value: Any) -> str:
        return encode_basestring_ascii(value) if type(value) is str else "".join(parts(value, 0))

    return encode


_encode_plain = _encoder()


class Context:
    """Where a record was written, next to the program's own fields; stored in the record by the first handler."""

    __slots__ = ("fields", "given", "handlers")

    def __init__(self) -> None:
        self.handlers: list[logging.Handler] = []
        """taskapp's handlers that have got the record."""
        self.fields: dict[str, Any] = {}
        """taskapp's fields by name."""
        self.given: dict[str, Any] = {}
        """The program's own values for the same names."""

    @classmethod
    def of(cls, record: logging.LogRecord) -> Self:
        """Return the context of ``record``, created on first use."""
        context: Self = record.__dict__.setdefault("_taskapp_context", cls())
        return context

    def add(self, record: logging.LogRecord, names: Sequence[str], values: Sequence[Any]) -> None:
        """Add fields to ``record``; an extra field of the same name keeps its value in the record."""
        for name, value in zip(names, values, strict=True):
            self.fields[name] = value
            if name in record.__dict__:
                self.given[name] = record.__dict__[name]
            else:
                record.__dict__[name] = value


class TaskFields(logging.Filter):
    """Adds to each record the task it was written in: id, type, queue and attempt (from 1)."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add ``TASK_FIELDS``, which are ``None`` outside a task; always return ``True``."""
        context = Context.of(record)
        if TASK_FIELDS[0] not in context.fields:
            context.add(record, TASK_FIELDS, self._values())
        return True

    @staticmethod
    def _values() -> tuple[Any, ...]:
        task = current_task if current_task else None
        if task is None:
            return (None,) * len(TASK_FIELDS)
        request = task.request
        return request.id, task.name, (request.delivery_info or {}).get("routing_key"), request.retries + 1


class TraceFields(logging.Filter):
    """Adds to each record the trace and the span it was written in."""

    def __init__(self) -> None:
        """Import OpenTelemetry."""
        super().__init__()
        from taskapp.tracing.spans import ids

        self._ids = ids

    def filter(self, record: logging.LogRecord) -> bool:
        """Add ``TRACE_FIELDS``, which are ``None`` outside a span; always return ``True``."""
        context = Context.of(record)
        if TRACE_FIELDS[0] not in context.fields:
            context.add(record, TRACE_FIELDS, self._ids() or (None, None))
        return True


class TaskLine(NamedTuple):
    """The content of a record at INFO for one of the node's own lines on a task, without the record."""

    at: float
    """Unix seconds."""
    logger: str
    template: str
    context: dict[str, Any]
    """Fills the template; also the extra field ``data``."""
    fields: tuple[Any, ...]
    """The values of ``TASK_FIELDS``."""

    def record(self) -> logging.LogRecord:
        """Return the record."""
        record = logging.LogRecord(self.logger, logging.INFO, __file__, 0, self.template, (self.context,), None)
        record.created, record.msecs = self.at, float(int((self.at - int(self.at)) * 1_000))
        record.__dict__["data"] = self.context
        Context.of(record).add(record, TASK_FIELDS, self.fields)
        return record


OUTSIDE = (None,) * len(TASK_FIELDS)
"""The fields of a line outside a run."""


class _Moment(NamedTuple):
    """The part that all lines of one second in one process share."""

    second: int
    pid: int
    text: str
    head: str
    """The text between time and message in a line for people."""
    json_head: str
    """A line of JSON up to the fraction of the second."""
    json_middle: str
    """What follows in it up to the name of the logger."""

    @classmethod
    def of(cls, second: int, pid: int) -> Self:
        """Return that of ``second``, Unix seconds."""
        text = strftime(logging.Formatter.default_time_format, localtime(second))
        level = logging.getLevelName(logging.INFO)
        json_head = f'{{"time": {_encode_plain(text)[:-1]}'
        json_middle = f'", "level": {_encode_plain(level)}, "logger": '
        return cls(second, pid, text, f" {level:7} {current_process().name} ", json_head, json_middle)


_NEVER = _Moment(-1, -1, "", "", "", "")
_OUTSIDE_IN_JSON = ", ".join(f'"{name}": null' for name in TASK_FIELDS)
_MILLISECONDS = tuple(f",{number:03d}" for number in range(1_000))


class _TaskTracebacks(logging.Formatter):
    """Shows tracebacks from the first frame of a task's code on."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is logging's
        """Return the traceback of ``ei``, as of ``sys.exc_info()``."""
        kind, error, traceback = ei
        return super().formatException((kind, error, task_frames(traceback)))


class TextFormatter(_TaskTracebacks):
    """One line for people, with the task at its end.

    Further lines of a message or traceback are indented, and control characters have no effect on a terminal, so that
    a task cannot forge log lines.
    """

    def __init__(self) -> None:
        """Use the same prefix for workers, beat and everything else."""
        super().__init__("%(asctime)s %(levelname)-7s %(processName)s %(message)s")
        self._moment = _NEVER

    def task_line(self, line: tuple[Any, ...]) -> str:
        """Return what ``format`` returns for the record of ``line``, a ``TaskLine``."""
        at, _logger, template, context, fields = line
        second, moment, pid = int(at), self._moment, os.getpid()
        if moment.second != second or moment.pid != pid:
            moment = self._moment = _Moment.of(second, pid)
        text = f"{moment.text}{_MILLISECONDS[int((at - second) * 1_000)]}{moment.head}{template % context}"
        if fields[0] is not None:
            text += self._place(*fields)
        return text if text.isprintable() else sanitize_lines(text)

    @staticmethod
    def _place(task_id: Any, task_type: Any, queue: Any, attempt: Any) -> str:
        return f" [{task_type} {task_id} queue={queue} attempt={attempt}]"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line, followed by ``[type id queue=… attempt=…]`` if a task wrote it."""
        line = super().formatMessage(record)
        fields = Context.of(record).fields
        if fields.get("task_id") is None:
            return line
        return line + self._place(*(fields[name] for name in TASK_FIELDS))

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; if the message cannot be formatted, a line that says so."""
        try:
            text = super().format(record)
        except Exception as error:  # noqa: BLE001 - raised by the __str__ of a logged value
            text = super().format(formattable(record, error))
        return sanitize_lines(text)


class JSONFormatter(_TaskTracebacks, JsonFormatter):
    """One line of JSON in ASCII; taskapp's names take precedence, see the module."""

    def __init__(self, fields: Sequence[str]) -> None:
        """Write ``fields`` in each line, ``None`` if a record lacks them."""
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(process)d %(message)s " + " ".join(f"%({f})s" for f in fields),
            rename_fields=LINE_FIELDS,
        )
        self._moment, self._has_trace = _NEVER, TRACE_FIELDS[0] in fields

    def task_line(self, line: tuple[Any, ...]) -> str:
        """Return what ``format`` returns for the record of ``line``, a ``TaskLine``.

        Raises:
            ValueError: The record has trace fields.
        """
        if self._has_trace:
            raise ValueError("the trace is not known here")
        at, logger, template, context, fields = line
        second, moment, pid = int(at), self._moment, os.getpid()
        if moment.second != second or moment.pid != pid:
            moment = self._moment = _Moment.of(second, pid)
        encode = _encode_plain
        place = _OUTSIDE_IN_JSON if fields is OUTSIDE else self._place(*fields)
        text = (
            f"{moment.json_head}{_MILLISECONDS[int((at - second) * 1_000)]}{moment.json_middle}{encode(logger)}, "
            f'"process": {pid}, "message": {encode(template % context)}, {place}, "data": {encode(context)}}}'
        )
        return sanitize_json(text)

    @staticmethod
    def _place(task_id: Any, task_type: Any, queue: Any, attempt: Any) -> str:
        encode = _encode_plain
        return (
            f'"task_id": {encode(task_id)}, "task_type": {encode(task_type)}, "queue": {encode(queue)}, '
            f'"attempt": {encode(attempt)}'
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; if the message cannot be formatted, a line that says so."""
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - raised by the __str__ of a logged value
            return super().format(formattable(record, error))

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Fill ``log_data``; a program's field with one of taskapp's names is written as ``extra_<name>``."""
        super().add_fields(log_data, record, message_dict)
        context = Context.of(record)
        lines = {name: getattr(record, attribute) for attribute, name in LINE_FIELDS.items()}
        given = {name: record.__dict__[name] for name in lines if name in record.__dict__} | context.given
        own = {**lines, **context.fields}
        given |= {name: value for name, value in message_dict.items() if name in own}
        log_data |= own
        log_data |= {f"extra_{name}": value for name, value in given.items()}

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return ``log_data`` as JSON, with a text for each value that JSON cannot represent."""
        try:
            text = super().jsonify_log_record(log_data)
        except Exception:  # noqa: BLE001 - keys that are not strings, cycles, errors raised by a value's own code
            text = super().jsonify_log_record({str(name): _writable(value) for name, value in log_data.items()})
        return sanitize_json(text)


def _writable(value: Any) -> Any:
    try:
        json.dumps(value)
    except Exception:  # noqa: BLE001 - the same
        return saferepr(value, VALUE_MOST)
    return value


def formatter(log_format: str) -> logging.Formatter:
    """Return the formatter for the setting ``log_format``, ``text`` or ``json``."""
    if log_format == "json":
        fields = (*TASK_FIELDS, *TRACE_FIELDS) if tracing.is_on(get_settings()) else TASK_FIELDS
        return JSONFormatter(fields)
    return TextFormatter()
