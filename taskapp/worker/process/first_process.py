"""A worker that is the first process of a container: somebody has to end what becomes of orphans there.

An orphan, such as the rest of a program that went into the background, falls to the first process of its
container and stays a zombie until that one waits for it. A worker cannot wait for everybody: it would take the
exit codes of children from those who wait for them. So the first process forks, and is nothing but a parent
from then on; the worker is its child. With a signal it passes on who sent it.
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
"""Whether signals come to this process from a first process of its own."""


def run_below_first_process() -> None:
    """Go on in a child if this is the first process of its container; else do nothing."""
    global is_passed_on
    if os.getpid() != 1:
        return
    # What comes before the parent waits for it is kept.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
    child = os.fork()
    if child:
        _stand_by(child)
    # Its own group: a Ctrl-C of the terminal reaches the parent alone, which passes it on.
    os.setpgid(0, 0)
    is_passed_on = True
    failures.main_pid = os.getpid()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stand_by(child: int) -> NoReturn:
    """Pass signals on to ``child``, wait for whoever ends, and end as the child does."""
    libc = ctypes.CDLL(None)
    while True:
        come = signal.sigwaitinfo({*PASSED_ON, signal.SIGCHLD})
        if come.si_signo == signal.SIGCHLD:
            _reap(child)
        elif libc.sigqueue(child, come.si_signo, ctypes.c_void_p(come.si_pid)) != 0:
            with suppress(ProcessLookupError):
                os.kill(child, come.si_signo)


def _reap(child: int) -> None:
    """Wait for all that have ended; with ``child``, end as it did."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
