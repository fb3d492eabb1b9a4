"""Files and directories for nobody but the user of this process, from the moment they exist.

The mode is given to the call that creates: what is made first and restricted later can be opened in between.
What exists already keeps its mode, which somebody chose.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


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
