"""A non-blocking connection: scripts are sent at once, and answers are read when they arrive."""

from __future__ import annotations

import select
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import SHUT_RDWR
from time import monotonic
from typing import Any, NamedTuple

import hiredis
from redis.connection import Connection

from taskapp.background import start_thread
from taskapp.redis.internals import socket_of
from taskapp.redis.link import NotSent, is_modern
from taskapp.redis.scripts import ROOMS, script

READ_BYTES = 1 << 16
ANSWER_SHOWN_MOST = 120
SENDING_SECONDS = 5.0
"""How long a server may accept no data before the connection counts as broken, if it has no timeout of its own."""
NOTHING_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
Connect = Callable[[], Connection]


class SentScript(NamedTuple):
    """A script that was sent, or could not be sent, with the callback for its answer."""

    name: str
    args: tuple[Any, ...]
    on_answer: Callable[[Any], None]
    """Called with the answer, or with an exception: a ``hiredis.ReplyError`` or a ``NotSent``."""


class Pipe:
    """Sends from any thread. Its owner, one thread, opens and closes it and reads answers in the order of the calls."""

    def __init__(self, connect: Connect, scripts: Sequence[str] = (), rooms: Path = ROOMS) -> None:
        self._connect = connect
        self._scripts = scripts
        self._rooms = rooms
        self._connection: Connection | None = None
        self._is_broken = False
        self._opening: _Opening | None = None
        self._reader: hiredis.Reader | None = None
        self._modern = True
        self._sending = threading.Lock()
        self._watchers: list[Callable[[Any], None]] = []
        self.unanswered: deque[SentScript] = deque()
        self._waiting_since = 0.0

    @property
    def is_open(self) -> bool:
        """Whether there is a connection not known to be broken."""
        return self._connection is not None and not self._is_broken

    @property
    def is_opening(self) -> bool:
        """Whether a connection is being made in the background."""
        return self._opening is not None

    @property
    def socket(self) -> Any:
        """The socket to poll, or ``None``. A loop that polls it must register with ``before_closing``."""
        connection = self._connection
        return socket_of(connection) if connection is not None else None

    def before_closing(self, watcher: Callable[[Any], None]) -> None:
        """Call ``watcher`` with the current socket before it is closed; on the owner's thread, once.

        A loop must not poll a closed descriptor: another connection may get its number at once, and libuv
        aborts the process.
        """
        self._watchers.append(watcher)

    # --- opening ------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect, and wait until the connection is open.

        Raises:
            NotSent: The server cannot be reached, or refuses.
        """
        while not self.open_soon():
            self.wait_opened()

    def open_soon(self) -> bool:
        """Start connecting in the background, unless already started; return whether the connection is open.

        Connecting takes several answers of the server, for which a loop must not wait.

        Raises:
            NotSent: The server cannot be reached, or refuses; once for each attempt.
        """
        if self.is_open:
            return True
        if self._opening is None:
            self.close()
            self._opening = _Opening(self._opened_connection)
            return False
        if not self._opening.is_over.is_set():
            return False
        opening, self._opening = self._opening, None
        if opening.connection is None:
            raise NotSent(str(opening.error)) from opening.error
        self._reader = hiredis.Reader(notEnoughData=False)
        self._is_broken = False
        self._connection = opening.connection
        return True

    def wait_opened(self, seconds: float | None = None) -> None:
        """Wait until the attempt to connect is over, for up to ``seconds``."""
        if self._opening is not None:
            self._opening.is_over.wait(seconds)

    def _opened_connection(self) -> Connection:
        connection = self._connect()
        connection.connect()
        self._modern = is_modern(connection)
        self._load(connection)
        _socket(connection).settimeout(0)
        return connection

    def _load(self, connection: Connection) -> None:
        """Load the scripts: one found missing later would run after commands sent behind it."""
        if self._scripts:
            sources = [script(name, self._rooms).source(modern=self._modern).text for name in self._scripts]
            connection.send_packed_command(connection.pack_commands([("SCRIPT", "LOAD", text) for text in sources]))
            for _ in sources:
                connection.read_response()

    # --- sending ------------------------------------------------------------------------------

    def send(self, name: str, args: tuple[Any, ...], on_answer: Callable[[Any], None]) -> bool:
        """Send the script ``name``; return whether it was sent. A call that was not sent is not kept."""
        source = script(name, self._rooms).source(modern=self._modern)
        return self._write(("EVALSHA", source.sha, 0, *args), SentScript(name, args, on_answer))

    def ask(self, *command: Any, on_answer: Callable[[Any], None]) -> bool:
        """Send one plain command; return whether it was sent."""
        return self._write(command, SentScript("", command, on_answer))

    def _write(self, command: tuple[Any, ...], call: SentScript) -> bool:
        packed = _packed(command)
        with self._sending:
            connection = self._connection
            if connection is None or self._is_broken:
                return False
            if not self.unanswered:
                self._waiting_since = monotonic()
            self.unanswered.append(call)
            try:
                _send_whole(_socket(connection), packed, connection.socket_timeout or SENDING_SECONDS)
            except OSError:
                # A command that was not written completely is not carried out; the reader finds the connection broken.
                self.unanswered.pop()
                self._break()
                return False
        return True

    def _break(self) -> None:
        """Make the owner notice that the connection is broken; only it may close what its loop polls."""
        self._is_broken = True
        socket = self.socket
        if socket is not None:
            try:
                socket.shutdown(SHUT_RDWR)
            except OSError:
                return  # it is broken at both ends

    # --- reading ------------------------------------------------------------------------------

    def read(self) -> bool:
        """Read available answers and call their callbacks; return whether the connection still works. Never waits."""
        connection, reader = self._connection, self._reader
        if connection is None or reader is None:
            return False
        try:
            self._take_in(_socket(connection), reader)
            while (answer := reader.gets()) is not False:
                self._hand_out(answer)
        except (OSError, hiredis.ProtocolError):
            self.close()
            return False
        self._waiting_since = monotonic()
        return True

    def _take_in(self, socket: Any, reader: hiredis.Reader) -> None:
        """Feed ``reader`` with the available bytes: none, part of an answer, or more."""
        try:
            if not isinstance(socket, ssl.SSLSocket):
                data = socket.recv(READ_BYTES)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                reader.feed(data)
                return
            # OpenSSL cannot read and write at the same time. And it may buffer decrypted bytes that poll does not see.
            with self._sending:
                while data := socket.recv(READ_BYTES):
                    reader.feed(data)
        except NOTHING_YET:
            return
        raise ConnectionResetError("the server closed the connection")

    def _hand_out(self, answer: Any) -> None:
        if not self.unanswered:
            raise hiredis.ProtocolError(f"the server sent an answer to no call: {answer!r}"[:ANSWER_SHOWN_MOST])
        call = self.unanswered.popleft()
        if isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT"):
            source = script(call.name, self._rooms).source(modern=self._modern)
            if not self._write(("EVAL", source.text, 0, *call.args), call):
                call.on_answer(NotSent("the connection broke"))
            return
        call.on_answer(answer)

    def is_silent_since(self, at: float) -> bool:
        """Return whether a call has been waiting since ``at`` (monotonic) without a byte of an answer."""
        connection = self._connection
        if connection is None or not self.unanswered or self._waiting_since > at:
            return False
        poll = select.poll()
        poll.register(_socket(connection), select.POLLIN)
        return not poll.poll(0)

    # --- closing ------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection; only the owner may call this. Unanswered calls stay in ``unanswered``."""
        if self._opening is not None:
            self._opening.give_up()
            self._opening = None
        socket = self.socket
        watchers, self._watchers = self._watchers, []
        if socket is not None:
            for watcher in watchers:
                watcher(socket)
        with self._sending:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def shut(self) -> None:
        """Shut the connection down from any thread: nothing is sent or read any more. Its owner closes it."""
        with self._sending:
            self._break()


class _Opening:
    """One attempt to connect, on a thread of its own."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._is_given_up = False
        self.connection: Connection | None = None
        self.error: Exception | None = None
        self.is_over = threading.Event()
        start_thread(self._run, name="connect")

    def _run(self) -> None:
        try:
            connection = self._connect()
            with self._lock:
                if not self._is_given_up:
                    self.connection = connection
                    return
            connection.disconnect()
        except Exception as error:  # noqa: BLE001 - ``open_soon`` raises it
            self.error = error
        finally:
            self.is_over.set()

    def give_up(self) -> None:
        """Close the connection if the attempt succeeds, or has succeeded."""
        with self._lock:
            self._is_given_up = True
        if self.connection is not None:
            self.connection.disconnect()


def _send_whole(socket: Any, packed: bytes, patience_seconds: float) -> None:
    """Send all of ``packed`` over a non-blocking socket; wait up to ``patience_seconds`` while its buffer is full.

    Raises:
        OSError: The connection is broken, or the server accepts no data.
    """
    rest = memoryview(packed)
    while rest:
        try:
            rest = rest[socket.send(rest) :]
        except NOTHING_YET as error:
            poll = select.poll()
            wants_to_read = isinstance(error, ssl.SSLWantReadError)
            poll.register(socket, select.POLLIN if wants_to_read else select.POLLOUT)
            if not poll.poll(patience_seconds * 1_000):
                raise TimeoutError("the server accepts no data") from error


def _packed(command: tuple[Any, ...]) -> bytes:
    try:
        return bytes(hiredis.pack_command(command))
    except UnicodeEncodeError:
        parts: tuple[Any, ...] = tuple(_encoded(part) if isinstance(part, str) else part for part in command)
        return bytes(hiredis.pack_command(parts))


def _encoded(text: str) -> bytes:
    """Return bytes for any text: undecodable bytes as they were received, half a surrogate pair as an escape."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace")


def _socket(connection: Connection) -> Any:
    socket = socket_of(connection)
    if socket is None:
        raise ConnectionResetError("the connection is closed")
    return socket
