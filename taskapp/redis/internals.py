"""Private names of redis-py that taskapp uses, behind plain names, with the reasons.

``taskapp.celery_internals`` explains the tables; this module is separate because the engine depends on neither
Celery nor kombu.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

Table = dict[str, dict[str, str]]

ACCESSED: Table = {
    "redis._parsers.hiredis": {"_parsers": "the module of the value that stands for an incomplete answer"},
    "redis._parsers.hiredis:_HiredisParser": {"_reader": "tells whether a complete answer is available"},
    "redis.connection:AbstractConnection": {
        "_parser": "its errors, without redis-py's overhead for each command",
        "_sock": "the socket, to poll it and write to it without blocking; kombu does the same",
    },
}  # fmt: skip

INHERITED: Table = {
    "redis.connection:UnixDomainSocketConnection": {"_connect": "the process that listens is checked first"},
}  # fmt: skip

# Implemented in C: as fast as the attribute access itself.
socket_of: Callable[[Any], Any] = attrgetter("_sock")
"""The socket of a connection; ``None``: it is closed."""


def error_parser(connection: Connection) -> Any:
    """Return the function that turns an error text of the server into redis-py's exception."""
    return connection._parser.parse_error


def has_answer(connection: Any) -> bool:
    """Read available bytes from ``connection`` without waiting; return whether an answer is complete.

    Raises:
        RedisError: The connection is closed or broken.
    """
    parser: Any = connection._parser
    if getattr(parser, "_reader", None) is None:
        raise RedisConnectionError("the connection is closed")
    if not isinstance(parser._reader, _ReadAhead):
        parser._reader = _ReadAhead(parser._reader)
    if parser._reader.has_answer():
        return True
    try:
        while parser.read_from_socket(timeout=0, raise_on_timeout=False):
            if parser._reader.has_answer():
                return True
    except OSError as error:
        raise RedisConnectionError(str(error)) from error
    return False


class _ReadAhead:
    """A hiredis reader that can tell whether a complete answer is available."""

    def __init__(self, reader: Any) -> None:
        self.feed = reader.feed
        self._gets = reader.gets
        self._has_data = reader.has_data
        self._whole: deque[Any] = deque()

    def gets(self, *decode: bool) -> Any:
        """Return the next answer, or ``NOT_ENOUGH_DATA``."""
        return self._whole.popleft() if self._whole else self._gets(*decode)

    def has_data(self) -> bool:
        """Return whether there are bytes or answers that have not been taken."""
        return bool(self._whole) or self._has_data()

    def has_answer(self) -> bool:
        """Return whether a complete answer is available."""
        if not self._whole and (answer := self._gets()) is not NOT_ENOUGH_DATA:
            self._whole.append(answer)
        return bool(self._whole)
