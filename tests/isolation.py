"""The environment of tests: a home of their own, and no variable that leads to what they did not start."""

from __future__ import annotations

import os
import signal
import tempfile

LEADING_ELSEWHERE = ("TASKAPP_", "CELERY_", "FLOWER_", "OTEL_", "XDG_", "DJANGO_")
"""How variables begin that could lead a program under test to a server or a file of the developer's."""


def enter() -> str:
    """Give this process, and all it starts, a home of their own; return its directory.

    The default data directory is below the home, so that a program without any setting finds no server either.
    """
    for name in [name for name in os.environ if name.startswith(LEADING_ELSEWHERE)]:
        del os.environ[name]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would compile the same modules
    # What runs in the background of a shell ignores it, and so would all programs under test.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    home = tempfile.mkdtemp(prefix="tests-home-")
    os.environ |= {"HOME": home, "TASKAPP_ENV_FILE": ""}
    return home
