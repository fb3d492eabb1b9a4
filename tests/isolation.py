"""The environment of tests: a home of their own, and no variable that leads to what they did not start."""

from __future__ import annotations

import os
import tempfile

LEADING_ELSEWHERE = ("TASKAPP_", "CELERY_", "FLOWER_", "OTEL_", "XDG_", "DJANGO_")
"""How variables begin that could lead a program under test to a server or a file of the developer's."""
KEPT = "TASKAPP_TEST_"


def enter() -> str:
    """Give this process, and all it starts, a home of their own; return its directory.

    The default data directory is below the home, so that a program without any setting finds no server either.
    """
    for name in [name for name in os.environ if name.startswith(LEADING_ELSEWHERE) and not name.startswith(KEPT)]:
        del os.environ[name]
    home = tempfile.mkdtemp(prefix="tests-home-")
    os.environ |= {"HOME": home, "TASKAPP_ENV_FILE": ""}
    return home
