"""Where the server listens: a Unix socket in a directory only its owner can enter, and who is behind a socket.

A socket's path is short (``sockaddr_un`` has 104 to 108 bytes, the last of them zero) and some file systems hold
none, so there are several places for it: the server's own directory, ``XDG_RUNTIME_DIR``, a directory for
temporary files. In the last two it gets a directory of its own with mode 0700.
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
    """Return the path at which the server of ``home`` can listen; make the directory for it if there is none.

    Args:
        home: The server's own directory, which is private already.
        last: Where the previous server listened; taken again if possible, so that clients reconnect.

    Raises:
        EmbeddedServerFailed: There is no such place; with what is wrong with each.
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
        f"there is no place for the socket of the server of ours ({'; '.join(problems)}); set XDG_RUNTIME_DIR to a "
        "directory of your own with mode 0700, or TASKAPP_DATA_DIR to a shorter path, or TASKAPP_EMBEDDED=tcp"
    )


def _folders(home: Path, last: str) -> Iterator[Path]:
    name = f"taskapp-{os.geteuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    if last and Path(last).parent.name == name:  # else it is of another directory, of which this one is a copy
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
        raise ValueError("it is no text in UTF-8, which a URL needs") from None
    if length > LONGEST_SOCKET_BYTES:
        raise ValueError(f"it has {length} bytes, and a socket's path may have {LONGEST_SOCKET_BYTES}")


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ValueError(f"{str(folder)!r} is not a directory that only user {os.geteuid()} can enter")


def _try_to_listen(folder: Path) -> None:
    """Raise ``OSError`` where the file system holds no sockets, as some shared folders of virtual machines."""
    probe = folder / "probe"
    with socket.socket(socket.AF_UNIX) as listener:
        probe.unlink(missing_ok=True)
        try:
            listener.bind(os.fsencode(probe))
        finally:
            probe.unlink(missing_ok=True)


def forget_socket(home: Path, path: str) -> None:
    """Remove the directory that was made for the socket at ``path``, once nobody listens there."""
    folder = Path(path).parent
    if path and folder != home:
        with contextlib.suppress(OSError):
            Path(path).unlink(missing_ok=True)
            folder.rmdir()


def check_peer(connected: socket.socket) -> None:
    """Make sure that who listens at the other end of a Unix socket is the user of this process.

    Raises:
        PermissionError: It is somebody else; nothing was sent.
    """
    if (uid := peer_uid(connected)) != os.geteuid():
        raise PermissionError(f"a process of user {uid} listens there, not one of yours (user {os.geteuid()})")


def peer_uid(connected: socket.socket) -> int:
    """Return the id of the user who listens at the other end of a Unix socket; the kernel says so."""
    if sys.platform == "linux":
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        return int(struct.unpack("iII", credentials)[1])  # process, user, group
    return uid_of_xucred(connected.getsockopt(0, 1, 76))  # SOL_LOCAL, LOCAL_PEERCRED of macOS and FreeBSD


def uid_of_xucred(credentials: bytes) -> int:
    """Return the user of a ``struct xucred``: its version, the user, groups."""
    return int(struct.unpack_from("=II", credentials)[1])
