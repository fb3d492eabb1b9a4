"""Where lines go: a file, a pipe, a terminal or a socket, written to without ever waiting for its reader.

A pipe or a terminal is opened a second time, in non-blocking mode: setting the mode on the inherited descriptor would
set it for every process that shares it.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

ATOMIC_BYTES = select.PIPE_BUF
"""A pipe accepts this much as a whole or not at all, so that lines of other processes cannot interrupt it."""


class StreamSink:
    """An open stream, such as stderr.

    Args:
        descriptor: Returns its current file descriptor; programs may redirect it.
    """

    is_file = False
    name = "the log"

    def __init__(self, descriptor: Callable[[], int]) -> None:
        self._descriptor = descriptor
        self._seen: tuple[int, int, int] | None = None
        self._own: int | None = None
        self._write: Callable[[memoryview], int] = self._write_when_ready

    def write(self, data: memoryview) -> int:
        """Write a first part of ``data``, in whole lines; return its size, 0 if nothing can be written now.

        Raises:
            OSError: It accepts nothing: a full disk, a closed pipe.
        """
        self._open()
        try:
            return self._write(data)
        except BlockingIOError:
            return 0

    def wait(self, seconds: float) -> None:
        """Wait up to ``seconds`` until it accepts data."""
        poller = select.poll()
        with suppress(OSError, ValueError):
            poller.register(self._current(), select.POLLOUT)
            poller.poll(seconds * 1_000)

    def close(self) -> None:
        """Close the second descriptor, if there is one."""
        if self._own is not None:
            with suppress(OSError):
                os.close(self._own)
        self._own = self._seen = None

    def _current(self) -> int:
        return self._descriptor() if self._own is None else self._own

    def _open(self) -> None:
        """Choose how to write, if the descriptor refers to something else than before."""
        descriptor = self._descriptor()
        found = os.fstat(descriptor)
        seen = descriptor, found.st_dev, found.st_ino
        if seen == self._seen:
            return
        self.close()
        self.is_file = stat.S_ISREG(found.st_mode)
        self._write = self._way(descriptor, found.st_mode)
        self._seen = seen

    def _way(self, descriptor: int, mode: int) -> Callable[[memoryview], int]:
        if self.is_file or (stat.S_ISCHR(mode) and not os.isatty(descriptor)):
            return lambda data: os.write(descriptor, data)
        if stat.S_ISSOCK(mode):
            with suppress(OSError):
                return self._socket_way(descriptor)
        elif not os.get_blocking(descriptor):
            return lambda data: _write_pieces(descriptor, data)
        else:
            with suppress(OSError):
                own = self._own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
                return lambda data: _write_pieces(own, data)
        return self._write_when_ready

    def _socket_way(self, descriptor: int) -> Callable[[memoryview], int]:
        connection = socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM)
        self._own = connection.detach()
        return partial(_send, self._own)

    def _write_when_ready(self, data: memoryview) -> int:
        """Write a piece, after asking whether it fits: after a change of user a pipe cannot be opened again."""
        poller = select.poll()
        poller.register(self._descriptor(), select.POLLOUT)
        if not poller.poll(0):
            return 0
        return os.write(self._descriptor(), _piece(data))


class FileSink:
    """A file, opened for appending; if it was moved or removed, as by log rotation, it is created again."""

    is_file = True

    def __init__(self, path: str) -> None:
        self.name = path
        self._file: int | None = None
        self._seen = (-1, -1)

    def write(self, data: memoryview) -> int:
        """Write ``data``; return the number of bytes written.

        Raises:
            OSError: It cannot be opened or written.
        """
        return os.write(self._current(), data)

    def wait(self, seconds: float) -> None:
        """Return at once: a file accepts everything, or fails."""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
        self._file = None

    def _current(self) -> int:
        try:
            found = os.stat(self.name)  # noqa: PTH116 - for each batch
            seen = found.st_dev, found.st_ino
        except FileNotFoundError:
            seen = (-1, -1)
        if self._file is None or seen != self._seen:
            self.close()
            self._file = os.open(self.name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            opened = os.fstat(self._file)
            self._seen = opened.st_dev, opened.st_ino
        return self._file


Sink = StreamSink | FileSink


def file_sink(path: str) -> FileSink:
    """Return the sink for ``path``, relative to the current folder."""
    return FileSink(str(Path(path).absolute()))


def _send(descriptor: int, data: memoryview) -> int:
    with memoryview(data) as given, socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        return connection.send(given, socket.MSG_DONTWAIT)


def _write_pieces(descriptor: int, data: memoryview) -> int:
    """Write as many whole lines as fit."""
    written = 0
    while written < len(data):
        piece = _piece(data[written:])
        try:
            done = os.write(descriptor, piece)
        except BlockingIOError:
            break
        written += done
        if done < len(piece):
            break
    return written


def _piece(data: memoryview) -> memoryview:
    """Return the first lines of ``data`` that a pipe accepts as a whole, at least one line."""
    if len(data) <= ATOMIC_BYTES:
        return data
    raw = bytes(data[:ATOMIC_BYTES])
    end = raw.rfind(b"\n") + 1
    if not end:
        end = bytes(data).find(b"\n") + 1
    return data[: end or len(data)]
