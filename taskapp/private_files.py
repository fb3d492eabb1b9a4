"""Files and directories for nobody but the user of this process, from the moment they exist; whose files to believe.

The mode is given to the call that creates: what is made first and restricted later can be opened in between.
What exists already keeps its mode, which somebody chose.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
LINKS_MOST = 40
"""Links that are followed for one path, as Linux does."""


def make_private_directory(path: Path) -> None:
    """Make ``path`` and what is missing above it; one that is there already is no error.

    Raises:
        OSError: It cannot be made, or is something else.
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
    """Open a file, making it if ``flags`` say so, and return its descriptor; an ``opener`` of ``open()``."""
    return os.open(path, flags, FILE_MODE)


def make_private_file(path: Path) -> None:
    """Make ``path``, empty, for a library that then opens it with a mode of its own; one that is there is left alone.

    Raises:
        OSError: It cannot be made.
    """
    with suppress(FileExistsError):
        os.close(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))


def why_not_trusted(path: Path) -> str:
    """Return why what ``path`` holds may be another user's doing; empty: only this user or root can have written it.

    The file has to belong to one of them, and so does its folder; nobody else may write to either. A group of the
    user's own, without other members, is nobody else. Links are followed, and the folder of each is looked at.
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
        return f"{str(path)!r} is a link in a circle"
    except OSError as error:
        return f"{str(path)!r} cannot be looked at: {error.strerror}"


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
    """Return whether ``gid`` is root's, or the group that many systems make for each user."""
    import grp  # not on Windows
    import pwd

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return gid == 0
    return gid == 0 or (group.gr_name == user and set(group.gr_mem) <= {user})
