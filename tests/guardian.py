"""Ends what a test process started, however that process ends itself.

    pytest ──► guardian: waits for the end of pytest, then kills all that carries its mark
       └──► servers, nodes, their children …: each inherits the mark

After ``kill -9`` a server in a session of its own has no other tie to who started it. The mark is a number in a limit
that Linux has not enforced since 2.4 and passes on to every child: a server may clear its environment (Redis does), not
that. It is in the environment, too: a worker of pytest-xdist has a limit and a guardian of its own, and is itself known
by the environment that it was started with.
"""

from __future__ import annotations

import os
import re
import resource
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

VARIABLE = "STARTED_BY_TESTS"
"""No name that ``clean_environment`` takes out."""
XDIST_WORKER = "PYTEST_XDIST_WORKER"
RLIMIT_LOCKS = 10
"""As in Linux' headers; Python has no name for it."""
QUIET_LOOKS = 5
PAUSE_SECONDS = 0.1
_guardian: subprocess.Popen[bytes] | None = None
_mark = _mark_of_run = ""


def watch(directory: str) -> None:
    """Mark what this process starts from now on; when it ends, kill what is left of that and remove ``directory``."""
    global _guardian, _mark, _mark_of_run
    mark = _mark = str(secrets.randbelow(1 << 60) + 1)
    # Taken out, as a run of tests that a test starts is no worker of this one.
    of_starter, is_worker = os.environ.pop(VARIABLE, mark), os.environ.pop(XDIST_WORKER, None)
    _mark_of_run = of_starter if is_worker else mark
    argv = [sys.executable, "-I", "-S", __file__, str(os.getpid()), mark, directory]
    _limit(resource.RLIM_INFINITY)  # no mark, not even that of who started this process: the guardian outlives both
    _guardian = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/")
    _carry(mark)


@contextmanager
def for_the_run() -> Iterator[None]:
    """Let what is started meanwhile live until the whole run ends, not only this worker of pytest-xdist."""
    _carry(_mark_of_run)
    try:
        yield
    finally:
        _carry(_mark)


def _carry(mark: str) -> None:
    os.environ[VARIABLE] = mark
    _limit(int(mark))


def _limit(value: int) -> None:
    if sys.platform == "linux":
        resource.setrlimit(RLIMIT_LOCKS, (value, resource.RLIM_INFINITY))


def marked(mark: str) -> list[int]:
    """Return the processes that carry ``mark``."""
    in_limits = re.compile(rf"^Max file locks +{mark} ".encode(), re.MULTILINE)
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may be gone by now, or another user's
            if in_limits.search((directory / "limits").read_bytes()) or _has_variable(directory, mark):
                found.append(int(directory.name))
    return found


def _has_variable(directory: Path, mark: str) -> bool:
    return f"{VARIABLE}={mark}".encode() in (directory / "environ").read_bytes().split(b"\0")


def await_end(pid: int) -> None:
    """Return when the process that started this one has ended."""
    with suppress(OSError, AttributeError):
        handle = os.pidfd_open(pid)
        if os.getppid() == pid:  # otherwise the number may be another's by now
            select.select([handle], [], [])
            return
    while os.getppid() == pid:
        time.sleep(PAUSE_SECONDS)


def kill(mark: str) -> None:
    """Kill what carries ``mark`` until nothing has come after it for some looks: a supervisor may be starting more."""
    quiet = 0
    while quiet < QUIET_LOOKS:
        left = marked(mark)
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        quiet = 0 if left else quiet + 1
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    await_end(int(sys.argv[1]))
    kill(sys.argv[2])
    shutil.rmtree(sys.argv[3], ignore_errors=True)
