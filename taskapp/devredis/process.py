"""The server's process and address: starting the server, querying it, and distinguishing it from others."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskapp.devredis.home import HOST, ServerRecord

if TYPE_CHECKING:
    from redis import Redis

PORTS = range(20_000, 32_768)
"""Below the ephemeral ports that systems assign to outgoing connections. Otherwise a client that reconnects while the
server is down could be assigned the server's own port, connect to itself and block the port."""

ANSWER_SECONDS = 1.0
"""How long a server on this machine may take to answer one request."""

SHELL_SECONDS = 10.0

# $! is the server, which outlives this shell: init adopts it, so that a long-lived starter has no zombie.
# The configuration is read from stdin because a path with * ? [ would be interpreted as a pattern. The
# address is an argument so that the command line shows it even before the server changes its title.
LAUNCH = '"$0" - "$1" "$2" <"$3" >"$4" 2>&1 & echo $!'


def launch(program: Path, home: Path, record: ServerRecord) -> int:
    """Start ``program`` on the address of ``record``, in its own session and without our open files.

    Returns its process id.

    Raises:
        OSError: The program could not be started.
    """
    with contextlib.suppress(FileNotFoundError):
        (home / "server.log").replace(home / "server.log.1")
    address = ("--unixsocket", record.socket) if record.socket else ("--port", str(record.port))
    shell = subprocess.run(
        ["/bin/sh", "-c", LAUNCH, program, *address, home / "server.conf", home / "server.log"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=home,
        start_new_session=True,
        umask=0o077,
        timeout=SHELL_SECONDS,
        check=False,
    )
    if not shell.stdout.strip().isdigit():
        raise OSError(f"the shell could not start {str(program)!r}: {shell.stderr.decode(errors='replace')}")
    return int(shell.stdout)


def configuration(home: Path, record: ServerRecord) -> bytes:
    """Return the configuration file: password required, private socket, append-only file synced every second.

    The address is given on the command line.
    """
    lines = (
        *((b"port 0", b"unixsocketperm 700") if record.socket else (b"bind " + HOST.encode(),)),
        b"protected-mode yes",
        b"requirepass " + record.password.encode(),
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
    """Return ``path`` as a quoted string for a Redis configuration file; it may contain any bytes."""
    # Escapes everything that is not printable ASCII: Valkey 9.1 loses a bare 0xff.
    escaped = re.sub(rb"[^ !#-\[\]-~]", lambda found: b"\\x%02x" % ord(found[0]), os.fsencode(path))
    return b'"' + escaped + b'"'


def client_of(record: ServerRecord) -> Redis:
    """Return a client of the server of ``record``, which connects on first use."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    from taskapp.devredis.login import CheckedConnection

    client = Redis(
        host=HOST,
        port=record.port,
        unix_socket_path=record.socket or None,
        password=record.password,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=True,
        encoding_errors="surrogateescape",
    )
    if record.socket:
        client.connection_pool.connection_class = CheckedConnection
    return client


def ask(home: Path, record: ServerRecord | None) -> dict[str, Any] | None:
    """Return INFO of the server of ``record``; None if nothing or another program answers on its address.

    The server is ours if it accepts our password, works in ``home`` and has the recorded run id, if known. Over a Unix
    socket, the password is sent only to a process of this user.
    """
    from redis import RedisError

    if record is None:
        return None
    try:
        with client_of(record) as client:
            answer: dict[str, Any] = client.info()
            directory = client.config_get("dir")["dir"]
        is_ours = home.samefile(directory) and record.run_id in ("", str(answer["run_id"]))
        return {"loading": 0, **answer} if is_ours and identity(answer)["pid"] > 0 else None
    except (RedisError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # another program may answer anything


def identity(answer: dict[str, Any]) -> dict[str, Any]:
    """Return process id and run id from INFO, under their names in ``ServerRecord``."""
    return {"pid": int(answer["process_id"]), "run_id": str(answer["run_id"])}


def shut_down(record: ServerRecord) -> bool:
    """Make the server write its data and exit; return False if it refuses."""
    from redis import RedisError

    try:
        with client_of(record) as client:
            client.shutdown()
    except RedisError:
        return False
    return True


def find_process(home: Path, record: ServerRecord | None) -> int:
    """Return the id of the server process that works in ``home``; 0 if there is none, or only a zombie.

    On Linux, the process is found by its working directory even without ``record``, because its starter may have been
    killed before recording the process id. Elsewhere, it is found by the address of ``record`` on its command line.
    """
    if not Path("/proc/self/cwd").exists():
        return find_by_address(record.socket or str(record.port)) if record else 0
    recorded = [Path(f"/proc/{record.pid}")] if record else []
    for process in itertools.chain(recorded, Path("/proc").glob("[0-9]*")):
        with contextlib.suppress(OSError):  # the process has ended, or belongs to another user
            if (process / "cwd").samefile(home) and b"-server" in (process / "cmdline").read_bytes():
                return int(process.name)
    return 0


def find_by_address(address: str) -> int:
    """Return the id of a server process with ``address``, a port or a path, on its command line; 0 if there is none."""
    listing = subprocess.run(["/bin/ps", "-axww", "-o", "pid=,command="], capture_output=True, check=False).stdout
    pattern = rb"(?<!\w)" + re.escape(address.encode()) + rb"(?!\w)"
    found = re.search(rb"^ *(\d+) .*-server\b.*" + pattern, listing, re.MULTILINE)
    return int(found[1]) if found else 0


def is_free(port: int) -> bool:
    """Return whether a server can listen on ``port`` now."""
    with socket.socket() as probe:
        # As the server does; without it, recently closed connections would block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return True
    return False


def free_port() -> int:
    """Return a port of ``PORTS`` that is free now.

    Raises:
        OSError: None of 100 random ports is free.
    """
    ports = random.SystemRandom().sample(PORTS, 100)
    if (port := next(filter(is_free, ports), None)) is None:
        raise OSError(f"none of 100 ports between {PORTS[0]} and {PORTS[-1]} is free on {HOST}")
    return port
