"""A connection that does not wait: scripts are sent as they come, their answers read when they are there."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import hiredis
from redis.connection import Connection
from redis.exceptions import RedisError

from taskapp.redis import NotSent, is_modern, script

READ_BYTES = 1 << 16
Connect = Callable[[], Connection]


class Call(NamedTuple):
    """A script that was sent, or could not be, and who wants its answer."""

    name: str
    args: tuple[Any, ...]
    on_answer: Callable[[Any], None]
    """Called with the answer, or with an exception: a ``hiredis.ReplyError`` or a ``NotSent``."""


class Pipe:
    """Sends from any thread; answers are read by one, in the order of the calls."""

    def __init__(self, connect: Connect, scripts: Sequence[str] = (), package: str = "taskapp.broker") -> None:
        self._connect = connect
        self._scripts = scripts
        self._package = package
        self._connection: Connection | None = None
        self._reader: hiredis.Reader | None = None
        self._modern = True
        self._sending = threading.Lock()
        self.unanswered: deque[Call] = deque()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    @property
    def socket(self) -> Any:
        """The socket to watch, or ``None``."""
        connection = self._connection
        return connection._sock if connection is not None else None

    def open(self) -> None:
        """Connect.

        Raises:
            NotSent: The server cannot be reached.
        """
        try:
            connection = self._connect()
            connection.connect()
            self._modern = is_modern(connection)
            self._load(connection)
        except (RedisError, OSError) as error:
            raise NotSent(str(error)) from error
        self._reader = hiredis.Reader(notEnoughData=False)
        self._connection = connection

    def _load(self, connection: Connection) -> None:
        """Load the scripts: one that is found missing later would be carried out after what was sent behind it."""
        if self._scripts:
            sources = [script(self._package, name).source(modern=self._modern).text for name in self._scripts]
            connection.send_packed_command(connection.pack_commands([("SCRIPT", "LOAD", text) for text in sources]))
            for _ in sources:
                connection.read_response()

    def send(self, name: str, args: tuple[Any, ...], on_answer: Callable[[Any], None]) -> bool:
        """Send the script ``name``; say whether it went out. A call that did not is not remembered here."""
        source = script(self._package, name).source(modern=self._modern)
        return self._write(("EVALSHA", source.sha, 0, *args), Call(name, args, on_answer))

    def ask(self, *command: Any, on_answer: Callable[[Any], None]) -> bool:
        """Send one plain command."""
        return self._write(command, Call("", command, on_answer))

    def _write(self, command: tuple[Any, ...], call: Call) -> bool:
        packed = _packed(command)
        with self._sending:
            connection = self._connection
            if connection is None:
                return False
            self.unanswered.append(call)
            try:
                _socket(connection).sendall(packed)
            except OSError:
                # What was not written whole is not carried out; the reader finds the rest broken.
                self.unanswered.pop()
                self._drop()
                return False
        return True

    def read(self) -> bool:
        """Read what has come and hand out the answers; say whether the connection still stands."""
        connection, reader = self._connection, self._reader
        if connection is None or reader is None:
            return False
        try:
            socket = _socket(connection)
            data = socket.recv(READ_BYTES)
            while data:
                reader.feed(data)
                # TLS may hold decrypted bytes that no poll will announce.
                pending = getattr(socket, "pending", None)
                data = socket.recv(READ_BYTES) if pending is not None and pending() else None
            if data == b"":
                raise ConnectionResetError("the server closed the connection")
            while (answer := reader.gets()) is not False:
                self._hand_out(answer)
        except (OSError, hiredis.ProtocolError):
            self.close()
            return False
        return True

    def _hand_out(self, answer: Any) -> None:
        call = self.unanswered.popleft()
        if isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT"):
            source = script(self._package, call.name).source(modern=self._modern)
            if not self._write(("EVAL", source.text, 0, *call.args), call):
                call.on_answer(NotSent("the connection broke"))
            return
        call.on_answer(answer)

    def close(self) -> None:
        """Let go of the connection. Unanswered calls stay in ``unanswered`` for their owner."""
        with self._sending:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


def _packed(command: tuple[Any, ...]) -> bytes:
    try:
        return bytes(hiredis.pack_command(command))
    except UnicodeEncodeError:
        parts: tuple[Any, ...] = tuple(_encoded(part) if isinstance(part, str) else part for part in command)
        return bytes(hiredis.pack_command(parts))


def _encoded(text: str) -> bytes:
    """Return bytes for any text: a name that came as other bytes as it came, half a surrogate pair in words."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace")


def _socket(connection: Connection) -> Any:
    # redis-py offers no other way to a connection whose answers are read when they come; kombu does the same.
    socket = connection._sock
    if socket is None:
        raise ConnectionResetError("the connection is closed")
    return socket
