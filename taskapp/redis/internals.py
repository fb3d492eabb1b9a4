"""Private names of redis-py: what we use of them, behind plain names, and why.

A file beside ``taskapp.celery_internals``, which says what the tables are: this one is for the engine, which knows
neither Celery nor kombu.
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
    "redis._parsers.hiredis": {"_parsers": "the module of what hiredis answers while an answer is not whole"},
    "redis._parsers.hiredis:_HiredisParser": {"_reader": "tells whether a whole answer has come"},
    "redis.connection:AbstractConnection": {
        "_parser": "its errors, without what redis-py does around each command",
        "_sock": "the socket, to be watched and written to without waiting; kombu does the same",
    },
}  # fmt: skip

INHERITED: Table = {
    "redis.connection:UnixDomainSocketConnection": {"_connect": "the process that listens is checked first"},
}  # fmt: skip

# Built in C: it costs what the attribute costs.
socket_of: Callable[[Any], Any] = attrgetter("_sock")
"""The socket of a connection; ``None``: it is closed."""


def error_parser(connection: Connection) -> Any:
    """Return what makes redis-py's error of what the server answered."""
    return connection._parser.parse_error


def has_answer(connection: Any) -> bool:
    """Read what has come over ``connection`` without waiting; return whether a whole answer is there.

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
    """A hiredis reader that can tell whether a whole answer has come."""

    def __init__(self, reader: Any) -> None:
        self.feed = reader.feed
        self._gets = reader.gets
        self._has_data = reader.has_data
        self._whole: deque[Any] = deque()

    def gets(self, *decode: bool) -> Any:
        """Return the next answer, or ``NOT_ENOUGH_DATA``."""
        return self._whole.popleft() if self._whole else self._gets(*decode)

    def has_data(self) -> bool:
        """Return whether anything has come that was not taken."""
        return bool(self._whole) or self._has_data()

    def has_answer(self) -> bool:
        """Return whether a whole answer has come."""
        if not self._whole and (answer := self._gets()) is not NOT_ENOUGH_DATA:
            self._whole.append(answer)
        return bool(self._whole)
