"""The server's own directory: ``server.json``, the lock, and what may go wrong with them.

``server.json`` says where and as whom the last server ran. It is kept after a stop, so that the
next server takes the same address and clients reconnect; the password is a new one each time. It is never
believed: who reads it verifies that the server of that run answers.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, model_validator

from taskapp.errors import EmbeddedServerFailed
from taskapp.private_files import make_private_directory, open_private

Kind = Literal["redis", "valkey"]

HOST = "127.0.0.1"

LONGEST_PATH_BYTES = 1_000
"""The server reports its directory from a buffer of 1,024 bytes."""

LOG_TAIL_CHARACTERS = 1_000


class ServerRecord(BaseModel):
    """What ``server.json`` holds."""

    model_config = ConfigDict(frozen=True)

    port: int = Field(default=0, ge=0, le=65_535)
    """On loopback; 0: it listens on ``socket``."""
    socket: str = ""
    """The path of a Unix socket; empty: it listens on ``port``."""
    password: str = Field(repr=False, min_length=1, pattern=r"^[\w-]+$")
    kind: Kind
    version: str = Field(pattern=r"^\d+\.\d+")
    origin: str
    pid: int = Field(default=0, ge=0)
    """0 while it is being started."""
    run_id: str = ""
    """The server's own random name for its run; empty until it has answered."""

    @model_validator(mode="after")
    def _has_one_address(self) -> ServerRecord:
        if bool(self.port) == bool(self.socket):
            raise ValueError("a server listens on a port or on a socket")
        return self

    @property
    def url(self) -> str:
        """Where it is, in kombu's words; without the password, see ``taskapp.devredis.login``."""
        return f"redis+socket://{quote(self.socket)}" if self.socket else f"redis://{HOST}:{self.port}/0"

    @property
    def address(self) -> str:
        """Where it is, for people and as its command line has it."""
        return self.socket or f"{HOST}:{self.port}"


def home_of(data_dir: Path) -> Path:
    """Return the directory of the server whose ``data_dir`` this is."""
    return data_dir.absolute() / "redis"


def prepare(home: Path) -> None:
    """Make ``home``, for our eyes only.

    Raises:
        EmbeddedServerFailed: It is somebody else's, or no server can work in it.
    """
    if len(os.fsencode(home)) > LONGEST_PATH_BYTES or "\0" in str(home):
        raise EmbeddedServerFailed(
            f"the path {str(home)[:80]!r}… is more than a Redis server can take ({LONGEST_PATH_BYTES} bytes, "
            "none of them zero); set TASKAPP_DATA_DIR to a shorter one"
        )
    make_private_directory(home)
    if (owner := home.stat().st_uid) != os.geteuid():
        raise EmbeddedServerFailed(
            f"{str(home)!r} belongs to user {owner}, not to {os.geteuid()}; set TASKAPP_DATA_DIR to one of your own"
        )
    home.chmod(0o700)


@contextlib.contextmanager
def explained(home: Path) -> Iterator[None]:
    """Turn what the operating system refuses into our error, with the remedy."""
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedServerFailed(
            f"the server of ours in {str(home)!r} cannot be managed: {error}; "
            "make that directory usable, or set TASKAPP_DATA_DIR to another or TASKAPP_BROKER_URL to a Redis"
        ) from error


@contextlib.contextmanager
def locked(home: Path, deadline: float) -> Iterator[None]:
    """Keep other starters and stoppers out; wait for them until ``deadline``, a monotonic time.

    Raises:
        EmbeddedServerFailed: Another one was still at work then.
    """
    import fcntl  # absent on Windows, where taskapp can still submit to a broker elsewhere

    # Neither the shell nor the server inherits it.
    with open(home / "lock", "ab", opener=open_private) as lock:
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise EmbeddedServerFailed(
                    f"another process keeps {str(home / 'lock')!r} locked, starting or stopping the server; try again"
                )
            time.sleep(0.02)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a fork made meanwhile has the file open too, and would keep the lock


def _try_lock(lock: IO[bytes]) -> bool:
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_record(home: Path) -> ServerRecord | None:
    """Return what ``server.json`` says; None without one, with a damaged one, or with somebody else's."""
    with contextlib.suppress(OSError, ValueError):
        if (home / "server.json").stat().st_uid == os.geteuid():
            return ServerRecord.model_validate_json((home / "server.json").read_bytes())
    return None


def write_record(home: Path, record: ServerRecord) -> None:
    """Replace ``server.json``."""
    write_private(home / "server.json", record.model_dump_json().encode())


def write_private(path: Path, content: bytes) -> None:
    """Replace ``path`` in one step, readable by us alone from the first moment."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with open(draft, "xb", opener=open_private) as file:
        file.write(content)
    draft.replace(path)


def has_data(home: Path) -> bool:
    """Whether a server has written data there, however few."""
    return any(any(home.glob(written)) for written in ("appendonlydir/*", "appendonly.aof", "dump.rdb"))


def last_words(home: Path, record: ServerRecord) -> str:
    """Return a sentence about a server that ended at its start, with the end of its log."""
    try:
        tail = (home / "server.log").read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].strip()
    except OSError as error:
        tail = f"(no log: {error})"
    return (
        f"{record.kind}-server {record.version} ({record.origin}) ended at its start in {str(home)!r}; "
        f"mend what its log says and try again:\n{tail}"
    )
