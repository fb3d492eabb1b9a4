"""The one gate for paths of tasks: which may be touched, and how a file is written at once."""

from __future__ import annotations

import glob
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from taskapp.errors import PathNotAllowed, PermanentError

LEFTOVER_SUFFIX = ".taskapp-partial"
"""Ends the name of a file whose writing was cut short; safe to delete."""
LEFTOVER_AGE_SECONDS = 3_600.0
"""A partial file this old belongs to no running write."""


def allowed_path(path: str | Path, roots: Sequence[Path], *, must_exist: bool) -> Path:
    """Return ``path`` absolute and free of symbolic links, if it lies below one of ``roots``.

    Relative paths count from the first root. With ``must_exist`` it must be a regular file.

    Raises:
        PathNotAllowed: It leads outside, by ``..`` or by a symbolic link.
        PermanentError: There is no such file, or it is a device, a pipe or a directory.
    """
    if "\0" in str(path) or not roots:
        raise PathNotAllowed(path, roots)
    resolved = (roots[0] / Path(path).expanduser()).resolve()
    if not any(resolved.is_relative_to(root.resolve()) and resolved != root.resolve() for root in roots):
        raise PathNotAllowed(path, roots)
    if resolved.exists() and not stat.S_ISREG(resolved.stat().st_mode):
        raise PermanentError(f"path {str(path)!r} is not a regular file")
    if must_exist and not resolved.exists():
        raise PermanentError(f"there is no file {str(path)!r}")
    return resolved


@contextmanager
def written_at_once(path: Path) -> Iterator[IO[str]]:
    """Yield a text file that becomes ``path`` when the block ends well, and vanishes when it does not.

    Readers see the old file or the new one, whole. A kill in between leaves a file that ends in
    ``LEFTOVER_SUFFIX``, which a write to the same ``path`` removes an hour later.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{LEFTOVER_SUFFIX}")
    try:
        with partial.open("x", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    oldest = time.time() - LEFTOVER_AGE_SECONDS
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{LEFTOVER_SUFFIX}"):
        if leftover.stat().st_mtime < oldest:
            leftover.unlink(missing_ok=True)
