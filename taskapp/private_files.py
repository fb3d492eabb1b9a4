"""Creates files and directories that only this process's user can access, and checks which files to trust.

The mode is passed to the call that creates: a file created first and restricted later could be opened in between.
Existing files and directories keep their mode, which somebody may have chosen.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
LINKS_MOST = 40
"""Maximum number of links to follow for a path, as in Linux."""


def make_private_directory(path: Path) -> None:
    """Create ``path`` and its missing parents; do nothing if it exists.

    Raises:
        OSError: It cannot be created, or is not a directory.
    """
    try:
        path.mkdir(mode=DIRECTORY_MODE)
    except FileNotFoundError:
        make_private_directory(path.parent)
        path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    except OSError:
        if not path.is_dir():
            raise


def open_private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file, creating it privately if ``flags`` say so; return its descriptor. An ``opener`` for ``open()``."""
    return os.open(path, flags, FILE_MODE)


def make_private_file(path: Path) -> None:
    """Create ``path`` as an empty file, for a library that would create it with its own mode; keep an existing one.

    Raises:
        OSError: It cannot be created.
    """
    with suppress(FileExistsError):
        os.close(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))


def why_not_trusted(path: Path) -> str:
    """Return why another user may have written ``path``; an empty string if only this user or root can have.

    File and directory must belong to one of them and must not be writable by others. The user's private group, without
    other members, does not count as others. Links are followed, and the directory of each is checked.
    """
    if not hasattr(os, "geteuid"):  # Windows, whose modes say nothing
        return ""
    try:
        for _ in range(LINKS_MOST):
            if reason := _why_writable(path.parent, path.parent.stat()) or _why_writable(path, path.lstat()):
                return reason
            if not path.is_symlink():
                return ""
            path = path.parent / path.readlink()
        return f"{str(path)!r} is part of a loop of links"
    except OSError as error:
        return f"could not check {str(path)!r}: {error.strerror}"


def _why_writable(path: Path, found: os.stat_result) -> str:
    if found.st_uid not in (0, os.geteuid()):
        return f"{str(path)!r} belongs to user {found.st_uid}"
    if stat.S_ISLNK(found.st_mode):  # the mode of a link means nothing
        return ""
    if found.st_mode & stat.S_IWOTH:
        return f"every user can write to {str(path)!r}"
    if found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid):
        return f"group {found.st_gid} can write to {str(path)!r}"
    return ""


def _is_own_group(gid: int) -> bool:
    """Return whether ``gid`` is root's group, or the private group that many systems create for each user."""
    import grp  # not on Windows
    import pwd

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return gid == 0
    return gid == 0 or (group.gr_name == user and set(group.gr_mem) <= {user})
