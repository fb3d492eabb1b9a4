"""A persistent connection to Redis, for scripts and single commands."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hiredis
from redis.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, NoScriptError, RedisError, ResponseError

from taskapp.redis.internals import error_parser, socket_of
from taskapp.redis.scripts import ROOMS, script


class NotSent(RedisConnectionError):
    """A command did not reach the server: it was not carried out."""


class OutcomeUnknown(RedisConnectionError):
    """A command was sent but not answered: it is unknown whether it was carried out."""


def over_resp2(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a connection that speaks RESP2, which needs no handshake.

    A password without a user is that of the user ``default``. RESP2 can also send it alone, which a server without a
    password refuses, though it accepts any password of this user, as in the handshake of RESP3.
    """
    login = {"username": "default"} if options.get("password") and not options.get("username") else {}
    return {**options, **login, "protocol": 2}


class Link:
    """A persistent connection, used by one thread at a time. Reconnects automatically; never repeats a command."""

    def __init__(self, connect: Callable[[], Connection], rooms: Path = ROOMS) -> None:
        self.connect = connect
        """Opens another connection to the same server."""
        self._rooms = rooms
        self._line: _Line | None = None
        self._lock = threading.RLock()
        self.patience_seconds: float | None = None
        """How long opening a connection may take; ``None``: the connection's own timeouts."""

    def run(self, name: str, *args: Any) -> Any:
        """Run the script ``name``; its first argument is the key prefix.

        Raises:
            NotSent: The server could not be reached.
            OutcomeUnknown: The connection broke while waiting for the answer.
            ResponseError: The server, or the script, refused.
        """
        with self._lock:
            line = self._usable()
            source = script(name, self._rooms).source(modern=line.is_modern)
            answer = self._ask(line, ("EVALSHA", source.sha, b"0", *args))
            if isinstance(answer, NoScriptError):
                answer = self._ask(line, ("EVAL", source.text, b"0", *args))
            return _unless_refused(answer)

    def command(self, *args: Any) -> Any:
        """Send one command and return its answer; errors are those of ``run``."""
        with self._lock:
            return _unless_refused(self._ask(self._usable(), args))

    def pipeline(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Send ``commands`` at once and return their answers; a refused command has its error as its answer."""
        with self._lock:
            line = self._usable()
            self._send(line, b"".join([hiredis.pack_command(command) for command in commands]))
            return [self._answer(line) for _ in commands]

    def close(self) -> None:
        """Close the connection; the next command opens another."""
        line, self._line = self._line, None
        if line is not None:
            line.connection.disconnect()

    def _usable(self) -> _Line:
        line = self._line
        if line is not None and line.has_ended():
            self.close()
        if self._line is None:
            self._line = self._open()
        return self._line

    def _open(self) -> _Line:
        try:
            connection = self.connect()
            usual_seconds = connection.socket_timeout
            if self.patience_seconds is not None:
                # Connecting waits twice: for the connection and for the first answer.
                each_seconds = max(self.patience_seconds / 2, 0.05)
                connection.socket_timeout = min(connection.socket_timeout or each_seconds, each_seconds)
                connection.socket_connect_timeout = min(connection.socket_connect_timeout or each_seconds, each_seconds)
            connection.connect()
            line = _Line(connection)
            line.socket.settimeout(usual_seconds)
        except (RedisError, OSError) as error:
            raise NotSent(str(error)) from error
        return line

    def _ask(self, line: _Line, command: tuple[Any, ...]) -> Any:
        self._send(line, hiredis.pack_command(command))
        return self._answer(line)

    def _send(self, line: _Line, packed: bytes) -> None:
        try:
            line.socket.sendall(packed)
        except OSError as error:
            self.close()
            raise NotSent(str(error)) from error
        except BaseException:
            # Interrupted halfway, by a time limit for example: the next command would become part of this one.
            self.close()
            raise

    def _answer(self, line: _Line) -> Any:
        """Return the next answer, which may be an error of the server."""
        try:
            answer = line.read()
            if isinstance(answer, RedisConnectionError):
                raise answer  # the server is loading its data, or requires authentication
        except (OSError, RedisError) as error:
            self.close()
            raise OutcomeUnknown(str(error)) from error
        except BaseException:
            # Interrupted between request and answer: the next request would read this answer.
            self.close()
            raise
        return answer


class _Line:
    """An open connection without redis-py's overhead, which is ten times the cost of the command itself."""

    READ_BYTES = 1 << 14

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.is_modern = is_modern(connection)
        self.socket: Any = socket_of(connection)
        if self.socket is None:
            raise RedisConnectionError("the server closed the connection")
        self._reader: Any = hiredis.Reader(replyError=error_parser(connection), notEnoughData=_Line)
        self._poll: Any = select.poll()
        self._poll.register(self.socket, select.POLLIN)

    def read(self) -> Any:
        """Return the next answer, an exception if it is an error; raises ``OSError`` and errors of redis-py."""
        reader = self._reader
        try:
            while (answer := reader.gets()) is _Line:
                data = self.socket.recv(self.READ_BYTES)
                if not data:
                    raise RedisConnectionError("the server closed the connection")
                reader.feed(data)
        except hiredis.ProtocolError as error:
            raise RedisConnectionError(str(error)) from error
        return answer

    def has_ended(self) -> bool:
        """Return whether the server has closed the idle connection."""
        try:
            return bool(self._poll.poll(0))
        except (OSError, ValueError):
            return True


def _unless_refused(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def all_answered(answers: list[Any]) -> list[Any]:
    """Return the ``answers`` of a pipeline; raise the first error among them."""
    for answer in answers:
        _unless_refused(answer)
    return answers


REFUSALS = ("MISCONF", "NOREPLICAS", "OOM", "READONLY")
"""How the answer of Redis begins while it refuses writes: full disk or memory, failover. The command is not at fault,
and repeating it later helps."""


DENIALS = ("NOPERM", "The user executing the script", "ACL failure in script")
"""Part of the answer of Redis to a command that its user may not run, by itself or in a script; of Redis 7.2 and
newer the last. Permissions can be granted again."""


def is_denied(problem: object) -> bool:
    """Return whether ``problem`` says that the user of Redis lacks a permission."""
    text = str(problem)
    return any(denial in text for denial in DENIALS)


SHEBANG_PROBE = "#!lua flags=no-writes,allow-stale\nreturn 1"


def is_modern(connection: Connection) -> bool:
    """Return whether the server at ``connection`` knows flags in scripts (Redis 7, Valkey).

    Uses commands available to users without permission for ``INFO``.
    """
    try:
        hello = _answer_of(connection, "HELLO")
    except ResponseError:
        return _knows_flags(connection)
    fields = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
    server, version = (bytes(fields.get(name, b"")) for name in (b"server", b"version"))
    return server == b"valkey" or int(version.split(b".")[0] or 7) >= 7


def _knows_flags(connection: Connection) -> bool:
    try:
        return bool(_answer_of(connection, "EVAL", SHEBANG_PROBE, 0))
    except NoPermissionError:
        return True
    except ResponseError:
        return False


def _answer_of(connection: Connection, *command: Any) -> Any:
    connection.send_command(*command, check_health=False)
    return connection.read_response()
