"""Support for a worker that is PID 1 of a container, which has to reap orphaned processes.

An orphan, such as a program that has gone into the background, is reparented to PID 1 and stays a zombie until that
process waits for it. A worker cannot wait for arbitrary children, because it would steal the exit codes that its own
code waits for. So PID 1 forks: the worker runs as its child, and PID 1 only reaps processes and passes signals on,
along with their senders.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from typing import NoReturn

from taskapp.execution import failures

PASSED_ON = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


is_passed_on = False
"""Whether this process is the child of such a PID 1, which passes signals on."""


def run_below_first_process() -> None:
    """Continue in a child process if this is PID 1; otherwise do nothing."""
    global is_passed_on
    if os.getpid() != 1:
        return
    # Blocked, so that signals stay pending until the parent waits for them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
    child = os.fork()
    if child:
        _stand_by(child)
    # A separate process group: Ctrl-C in the terminal reaches only the parent, which passes it on.
    os.setpgid(0, 0)
    is_passed_on = True
    failures.main_pid = os.getpid()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stand_by(child: int) -> NoReturn:
    """Pass signals on to ``child``, reap ended processes, and exit as the child does."""
    libc = ctypes.CDLL(None)
    while True:
        received = signal.sigwaitinfo({*PASSED_ON, signal.SIGCHLD})
        if received.si_signo == signal.SIGCHLD:
            _reap(child)
        elif libc.sigqueue(child, received.si_signo, ctypes.c_void_p(received.si_pid)) != 0:
            with suppress(ProcessLookupError):
                os.kill(child, received.si_signo)


def _reap(child: int) -> None:
    """Reap all processes that have ended; if ``child`` is one of them, exit as it did."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
