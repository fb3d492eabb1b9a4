"""A worker that is the first process of a container: somebody has to end what becomes of orphans there.

An orphan, such as the rest of a program that went into the background, falls to the first process of its
container and stays a zombie until that one waits for it. A worker cannot wait for everybody: it would take the
exit codes of children from those who wait for them. So the first process forks, and is nothing but a parent
from then on; the worker is its child.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any, NoReturn

from taskapp.worker import failures

PASSED_ON = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


def run_below_first_process() -> None:
    """Go on in a child if this is the first process of its container; else do nothing."""
    if os.getpid() != 1:
        return
    child = os.fork()
    if child:
        _stand_by(child)
    # Its own group: a Ctrl-C of the terminal reaches the parent alone, which passes it on.
    os.setpgid(0, 0)
    failures.main_pid = os.getpid()


def _stand_by(child: int) -> NoReturn:
    """Pass signals on to ``child``, wait for whoever ends, and end as the child does."""

    def pass_on(number: int, _: Any) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
