"""The server's own directory: ``server.json``, the lock, and the errors around them.

``server.json`` holds the address and identity of the last server. It is kept after a stop, so that the next server
takes the same address and clients reconnect; the password changes with each start. Readers never trust it without
verifying that the server with that run id answers.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Literal
from urllib.parse import quote

import msgspec

from taskapp.errors import EmbeddedServerFailed
from taskapp.private_files import make_private_directory, open_private

Kind = Literal["redis", "valkey"]

HOST = "127.0.0.1"

LONGEST_PATH_BYTES = 1_000
"""The server reports its directory from a buffer of 1,024 bytes."""

LOG_TAIL_CHARACTERS = 1_000


class ServerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of ``server.json``."""

    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    """Loopback port; 0 if the server listens on ``socket``."""
    socket: str = ""
    """Path of a Unix socket; empty if the server listens on ``port``."""
    password: Annotated[str, msgspec.Meta(pattern=r"^[\w-]+\Z")]
    kind: Kind
    version: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d+")]
    origin: str
    pid: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Process id; 0 while the server is being started."""
    run_id: str = ""
    """Random id that the server generates at each start; empty until it has answered."""

    def __post_init__(self) -> None:
        if bool(self.port) == bool(self.socket):
            raise ValueError("a server listens on a port or on a socket")

    def __repr__(self) -> str:
        # Without the password.
        return f"ServerRecord({self.kind} {self.version} on {self.address!r}, pid={self.pid})"

    @property
    def url(self) -> str:
        """URL for kombu, without the password; see ``taskapp.devredis.login``."""
        return f"redis+socket://{quote(self.socket)}" if self.socket else f"redis://{HOST}:{self.port}/0"

    @property
    def address(self) -> str:
        """Address shown to users: the socket's path, or host and port."""
        return self.socket or f"{HOST}:{self.port}"


def home_of(data_dir: Path) -> Path:
    """Return the directory of the embedded server under ``data_dir``."""
    return data_dir.absolute() / "redis"


def prepare(home: Path) -> None:
    """Create ``home`` and make it private.

    Raises:
        EmbeddedServerFailed: It belongs to another user, or its path is unsuitable.
    """
    if len(os.fsencode(home)) > LONGEST_PATH_BYTES or "\0" in str(home):
        raise EmbeddedServerFailed(
            f"the path {str(home)[:80]!r}… is unsuitable for a Redis server, which accepts up to {LONGEST_PATH_BYTES} "
            "bytes, none of them zero; set TASKAPP_DATA_DIR to a shorter path"
        )
    make_private_directory(home)
    if (owner := home.stat().st_uid) != os.geteuid():
        raise EmbeddedServerFailed(
            f"{str(home)!r} belongs to user {owner}, not to {os.geteuid()}; "
            "set TASKAPP_DATA_DIR to a directory that you own"
        )
    home.chmod(0o700)


@contextlib.contextmanager
def explained(home: Path) -> Iterator[None]:
    """Turn errors of the operating system into ``EmbeddedServerFailed``, with a remedy."""
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedServerFailed(
            f"could not manage the embedded Redis server in {str(home)!r}: {error}; "
            "make that directory usable, or set TASKAPP_DATA_DIR to another one or TASKAPP_BROKER_URL to a Redis"
        ) from error


@contextlib.contextmanager
def locked(home: Path, deadline: float) -> Iterator[None]:
    """Exclude other processes that start or stop the server; wait for them until ``deadline`` (monotonic).

    Raises:
        EmbeddedServerFailed: Another process still held the lock at ``deadline``.
    """
    import fcntl  # absent on Windows, where taskapp can still submit to a broker elsewhere

    # Not inheritable: neither the shell nor the server gets this file.
    with open(home / "lock", "ab", opener=open_private) as lock:
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise EmbeddedServerFailed(
                    f"another process is starting or stopping the server and holds {str(home / 'lock')!r}; try again"
                )
            time.sleep(0.02)
        try:
            yield
        finally:
            fcntl.flock(
                lock, fcntl.LOCK_UN
            )  # a process forked in the meantime has the file open and would keep it locked


def _try_lock(lock: IO[bytes]) -> bool:
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_record(home: Path) -> ServerRecord | None:
    """Return the contents of ``server.json``; None if it is missing, damaged or owned by another user."""
    with contextlib.suppress(OSError, ValueError):
        if (home / "server.json").stat().st_uid == os.geteuid():
            return msgspec.json.decode((home / "server.json").read_bytes(), type=ServerRecord)
    return None


def write_record(home: Path, record: ServerRecord) -> None:
    """Replace ``server.json``."""
    write_private(home / "server.json", msgspec.json.encode(record))


def write_private(path: Path, content: bytes) -> None:
    """Replace ``path`` atomically with a file that only this user can ever read."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with open(draft, "xb", opener=open_private) as file:
        file.write(content)
    draft.replace(path)


def has_data(home: Path) -> bool:
    """Return whether a server has written any data there."""
    return any(any(home.glob(written)) for written in ("appendonlydir/*", "appendonly.aof", "dump.rdb"))


def last_words(home: Path, record: ServerRecord) -> str:
    """Return the error message for a server that failed to start, with the end of its log."""
    try:
        tail = (home / "server.log").read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].strip()
    except OSError as error:
        tail = f"(no log: {error})"
    return (
        f"{record.kind}-server {record.version} ({record.origin}) failed to start in {str(home)!r}; "
        f"fix the problem shown in its log and try again:\n{tail}"
    )
