"""The server's Unix socket, in a directory that only its owner can enter, and checks of who is behind a socket.

The path of a socket must be short (``sockaddr_un`` has room for 104 to 108 bytes including the final zero), and some
file systems do not support sockets. So there are several candidates: the server's own directory, ``XDG_RUNTIME_DIR``
and the directories for temporary files. In all but the first, the socket gets its own directory with mode 0700.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from taskapp.errors import EmbeddedServerFailed

LONGEST_SOCKET_BYTES = 107 if sys.platform == "linux" else 103
SOCKET_NAME = "server.sock"
SHARED = "/tmp"  # noqa: S108 - a private directory is made there


def choose_socket(home: Path, last: str = "") -> Path:
    """Return a path on which the server of ``home`` can listen; create its directory if necessary.

    Args:
        home: The server's own directory, which is already private.
        last: Socket of the previous server, reused if possible so that clients reconnect.

    Raises:
        EmbeddedServerFailed: No candidate is usable; names the problem of each.
    """
    problems = []
    for folder in _folders(home, last):
        path = folder / SOCKET_NAME
        try:
            _check_length(path)
            if folder != home:
                _make_private(folder)
            _try_to_listen(folder)
        except (OSError, ValueError) as error:
            problems.append(f"{str(path)!r}: {error}")
        else:
            return path
    raise EmbeddedServerFailed(
        f"found no usable path for the socket of the embedded Redis server ({'; '.join(problems)}); set "
        "XDG_RUNTIME_DIR to a directory that you own with mode 0700, or TASKAPP_DATA_DIR to a shorter path, "
        "or TASKAPP_EMBEDDED=tcp"
    )


def _folders(home: Path, last: str) -> Iterator[Path]:
    name = f"taskapp-{os.geteuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    if last and Path(last).parent.name == name:  # otherwise ``home`` is a copy of another server's directory
        yield Path(last).parent
    yield home
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / name
    for shared in dict.fromkeys((tempfile.gettempdir(), SHARED)):
        yield Path(shared) / name


def _check_length(path: Path) -> None:
    try:
        length = len(str(path).encode())
    except UnicodeEncodeError:
        raise ValueError("it is not valid UTF-8, which a URL needs") from None
    if length > LONGEST_SOCKET_BYTES:
        raise ValueError(f"it has {length} bytes, but the path of a socket may have at most {LONGEST_SOCKET_BYTES}")


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ValueError(f"{str(folder)!r} is not a directory that only user {os.geteuid()} can enter")


def _try_to_listen(folder: Path) -> None:
    """Raise ``OSError`` if the file system does not support sockets, like some shared folders of virtual machines."""
    probe = folder / "probe"
    with socket.socket(socket.AF_UNIX) as listener:
        probe.unlink(missing_ok=True)
        try:
            listener.bind(os.fsencode(probe))
        finally:
            probe.unlink(missing_ok=True)


def forget_socket(home: Path, path: str) -> None:
    """Remove the socket at ``path`` and the directory created for it; the server must have stopped."""
    folder = Path(path).parent
    if path and folder != home:
        with contextlib.suppress(OSError):
            Path(path).unlink(missing_ok=True)
            folder.rmdir()


def check_peer(connected: socket.socket) -> None:
    """Check that the listener at the other end of a Unix socket belongs to this process's user.

    Raises:
        PermissionError: It belongs to another user; nothing has been sent.
    """
    if (uid := peer_uid(connected)) != os.geteuid():
        raise PermissionError(f"a process of user {uid} listens there, not one of yours (user {os.geteuid()})")


def peer_uid(connected: socket.socket) -> int:
    """Return the user id of the listener at the other end of a Unix socket, as reported by the kernel."""
    if sys.platform == "linux":
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        return int(struct.unpack("iII", credentials)[1])  # process, user, group
    return uid_of_xucred(connected.getsockopt(0, 1, 76))  # SOL_LOCAL, LOCAL_PEERCRED of macOS and FreeBSD


def uid_of_xucred(credentials: bytes) -> int:
    """Return the user id in a ``struct xucred``, which follows its version."""
    return int(struct.unpack_from("=II", credentials)[1])
