"""The log handlers of taskapp's application: stream and file handlers, as Celery installs them, on top of a writer.

Programs may use them like any other: change formatter, level and filters, or remove them. Other handlers are called as
usual.
"""

from __future__ import annotations

import logging
from logging.handlers import WatchedFileHandler
from typing import Any, TextIO
from weakref import WeakValueDictionary

from taskapp.logs.formatters import Context, JSONFormatter, TextFormatter
from taskapp.logs.sink import StreamSink, file_sink
from taskapp.logs.writer import LogWriter

_writers: WeakValueDictionary[object, LogWriter] = WeakValueDictionary()
"""One for each log, shared by all handlers that write to it."""


class _Lines(logging.Handler):
    """The behavior shared by both kinds."""

    terminator: str
    encoding: str | None
    writer: LogWriter | None
    _usual: tuple[logging.Formatter | None, list[Any]] | None = None

    def use(self, formatter: logging.Formatter, filters: list[logging.Filter]) -> None:
        """Format records with ``formatter``, after ``filters``."""
        self.setFormatter(formatter)
        for each in filters:
            self.addFilter(each)
        self._usual = formatter, list(self.filters)
        if self.writer is not None:
            self.writer.shown = self._shown

    def is_usual(self, level: int) -> bool:
        """Return whether level, formatter and filters are still those set by ``use``, and ``level`` passes."""
        return (
            self._usual is not None and self.level <= level and self.formatter is self._usual[0]
            and self.filters == self._usual[1] and "emit" not in self.__dict__
        )  # fmt: skip

    def handle(self, record: logging.LogRecord) -> bool:
        """Write ``record`` if the filters let it pass. The lock is held only while it is formatted."""
        Context.of(record).handlers.append(self)
        kept: Any = self.filter(record)
        if kept:
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return bool(kept)

    def line_of(self, record: logging.LogRecord) -> bytes:
        """Return ``record`` as it is written."""
        self.acquire()
        try:
            text = self.format(record)
        finally:
            self.release()
        return f"{text}{self.terminator}".encode(self.encoding or "utf-8", "backslashreplace")

    def _write(self, writer: LogWriter, record: logging.LogRecord) -> None:
        try:
            writer.write(self.line_of(record))
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - as logging itself does
            self.handleError(record)

    def warn(self, text: str) -> None:
        """Write ``text`` as a warning, without calling any code of the project."""
        if self.writer is not None:
            self.writer.write(self._shown(text))

    def _shown(self, text: str) -> bytes:
        """Return ``text`` as a warning in the format of this log."""
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
        if not isinstance(self.formatter, TextFormatter | JSONFormatter):
            return f"{text}\n".encode()
        return self.line_of(record)


class LineHandler(_Lines, logging.StreamHandler[Any]):
    """Writes to a stream."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._follow()

    def _follow(self) -> None:
        self._followed = self.stream
        self.encoding = getattr(self.stream, "encoding", None)
        self.writer = _writer_of(self.stream)

    def emit(self, record: logging.LogRecord) -> None:
        """Write ``record``."""
        if self.stream is not self._followed:
            self._follow()
        if self.writer is None:
            super().emit(record)
        else:
            self._write(self.writer, record)

    def flush(self) -> None:
        """Write all that was added."""
        if self.writer is not None:
            self.writer.flush()
        super().flush()


class FileHandler(_Lines, WatchedFileHandler):
    """Writes to a file, and creates it again if it was moved away."""

    def __init__(self, filename: str) -> None:
        super().__init__(filename, encoding="utf-8")
        self.writer: LogWriter = _writers.get(self.baseFilename) or LogWriter(file_sink(self.baseFilename))
        _writers[self.baseFilename] = self.writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write ``record``."""
        self._write(self.writer, record)

    def flush(self) -> None:
        """Write all that was added."""
        self.writer.flush()


Handler = LineHandler | FileHandler


def _writer_of(stream: TextIO) -> LogWriter | None:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None  # in memory, for example
    # The writer keeps the stream alive, so that no other stream gets its id.
    writer = _writers.get(id(stream)) or LogWriter(StreamSink(stream.fileno))
    _writers[id(stream)] = writer
    return writer
