"""The only gate for file paths in tasks: which are allowed, and how files are written atomically."""

from __future__ import annotations

import glob
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from taskapp.errors import PathNotAllowed, PermanentError
from taskapp.private_files import make_private_directory, open_private

LEFTOVER_SUFFIX = ".taskapp-partial"
"""Suffix of a file whose writing was interrupted; safe to delete."""
LEFTOVER_AGE_SECONDS = 3_600.0
"""Age from which a partial file cannot belong to a running write."""


def allowed_path(path: str | Path, roots: Sequence[Path], *, must_exist: bool) -> Path:
    """Return ``path`` absolute and free of symbolic links, if it is below one of ``roots``.

    Relative paths start at the first root. With ``must_exist`` it must be a regular file. The path is
    resolved here, once: open the returned one. Someone who may rename folders below a root can still
    swap one between the check and the open; tasks themselves cannot.

    Raises:
        PathNotAllowed: It leads outside, through ``..`` or a symbolic link.
        PermanentError: The file does not exist, is a device, a pipe or a directory, or cannot be accessed.
    """
    if "\0" in str(path) or not roots:
        raise PathNotAllowed(path, roots)
    try:
        resolved = _resolved(path, roots)
        mode = resolved.stat().st_mode
    except FileNotFoundError:
        mode = None
    # UnicodeError: a lone surrogate; RuntimeError: a loop of links, or the home of an unknown user.
    except (OSError, UnicodeError, RuntimeError) as error:
        raise PermanentError(f"path {str(path)!r} cannot be used: {_reason(error)}") from error
    if mode is None and must_exist:
        raise PermanentError(f"no file {str(path)!r}")
    if mode is not None and not stat.S_ISREG(mode):
        raise PermanentError(f"path {str(path)!r} is not a regular file")
    return resolved


def _resolved(path: str | Path, roots: Sequence[Path]) -> Path:
    resolved = (roots[0] / Path(path).expanduser()).resolve()
    inside = (resolved.is_relative_to(root.resolve()) and resolved != root.resolve() for root in roots)
    if not any(inside):
        raise PathNotAllowed(path, roots)
    return resolved


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).lower()


@contextmanager
def written_at_once(path: Path) -> Iterator[IO[str]]:
    """Yield a text file that becomes ``path`` if the block succeeds, and is deleted if it fails.

    Readers see either the old file or the complete new one. A kill during the block leaves a file that
    ends in ``LEFTOVER_SUFFIX``; writing the same ``path`` an hour later or more removes it. Missing
    folders are created; only this process's user can access them and the file. Once the block has
    ended, the file survives a power loss.
    """
    make_private_directory(path.parent)
    _remove_leftovers(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{LEFTOVER_SUFFIX}")
    try:
        with open(partial, "x", encoding="utf-8", newline="\n", opener=open_private) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the new name in ``folder`` durable; syncing the file does not."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(path: Path) -> None:
    oldest = time.time() - LEFTOVER_AGE_SECONDS
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{LEFTOVER_SUFFIX}"):
        # Another write may remove it at the same time.
        with suppress(FileNotFoundError):
            if leftover.stat().st_mtime < oldest:
                leftover.unlink()
