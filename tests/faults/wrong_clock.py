"""Processes with a wrong wall clock, which may jump while they run."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("wrong_clock.c")


class WrongClock:
    """The clock of one or several processes, off by ``set`` seconds; starts right."""

    def __init__(self, directory: Path, name: str, offset_seconds: int = 0) -> None:
        self.file = directory / f"{name}.clock"
        self.file.write_bytes(struct.pack("q", offset_seconds))
        self.library = _library(directory)

    def set(self, offset_seconds: int) -> None:
        """Make the clock jump; its processes see it with their next look at it."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("q", offset_seconds))

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to live by this clock."""
        return {"LD_PRELOAD": str(self.library), "WRONG_CLOCK_FILE": str(self.file)}


def problem() -> str | None:
    """Return why this machine can't have wrong clocks, or ``None``."""
    return None if shutil.which("cc") else "no C compiler (cc) to build the wrong clock with"


def _library(directory: Path) -> Path:
    library = directory / "wrong_clock.so"
    if not library.exists():
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True)
    return library
