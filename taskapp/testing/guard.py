"""A program that cleans up after a test process that was killed: ``python -m taskapp.testing.guard PID DIRECTORY``.

Its standard input is a pipe from the test process. At its end, orderly or not, it stops the node with that pid and the
embedded server in that directory, and removes the directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from taskapp import devredis

GRACE_SECONDS = 5.0
LOOK_SECONDS = 0.05


def clean_up(pid: int, directory: Path) -> None:
    """End the process group ``pid``, if it is still there, and the server; remove ``directory``."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(LOOK_SECONDS)
        os.killpg(pid, signal.SIGKILL)
    devredis.stop(directory)
    shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    """Wait for the end of standard input, then clean up."""
    # Ctrl-C reaches all programs of a terminal; this one ends last.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    was_ended = bool(sys.stdin.buffer.read())
    if not was_ended:
        clean_up(int(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
