"""Runs the tests of Django's own backends on ours: ``python -m tests.integration.django_suite FOLDER BROKER [TEST …]``.

FOLDER holds the package ``tasks``, a copy of ``tests/tasks`` of Django's source distribution. Django's dummy backend,
which runs nothing, is replaced by ours on a Redis without nodes; its immediate backend by ours with
``task_always_eager``. Prints outcomes as JSON on the last line.
"""

from __future__ import annotations

import json
import sys
import unittest
from pathlib import Path
from typing import Any

import django
from django.conf import settings

PACKAGE = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"


def replace_backends(broker: str) -> None:
    """Put ours in the place of Django's dummy and immediate backends."""
    from taskapp import Celery
    from taskapp.django import TaskBackend

    queued = Celery("queued", broker=broker, taskapp_key_prefix="suite:")
    eager = Celery("eager", broker=broker, task_always_eager=True, set_as_current=False)

    class Queued(TaskBackend):  # type: ignore[misc,valid-type]  # imported here
        app = queued

        def __init__(self, *args: Any, **params: Any) -> None:
            super().__init__(*args, **params)
            self.results: list[Any] = []

        def clear(self) -> None:
            self.results.clear()

        def enqueue(self, *args: Any, **kwargs: Any) -> Any:
            self.results.append(super().enqueue(*args, **kwargs))
            return self.results[-1]

        async def aenqueue(self, *args: Any, **kwargs: Any) -> Any:
            self.results.append(await super().aenqueue(*args, **kwargs))
            return self.results[-1]

    class Eager(TaskBackend):  # type: ignore[misc,valid-type]  # the same
        app = eager

    queued.set_default()
    sys.modules[f"{PACKAGE}.backends.dummy"].DummyBackend = Queued  # type: ignore[attr-defined]
    sys.modules[f"{PACKAGE}.backends.immediate"].ImmediateBackend = Eager  # type: ignore[attr-defined]
    package: Any = sys.modules[PACKAGE]
    package.Task = sys.modules[f"{PACKAGE}.base"].Task
    exceptions: Any = sys.modules[f"{PACKAGE}.exceptions"]
    for name in ("InvalidTask", "InvalidTaskBackend"):
        if not hasattr(exceptions, name):  # the names of Django 6
            setattr(exceptions, name, getattr(exceptions, f"{name}Error"))


class Outcomes(unittest.TextTestResult):
    """Keeps how each test ended."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ended: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - its name
        super().startTest(test)
        self.ended[test.id()] = ""

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self.ended[test.id()] = f"{err[0].__name__}: {err[1]}"

    addFailure = addError  # noqa: N815

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.ended[test.id()] = f"{err[0].__name__}: {err[1]}"


def main(folder: str, broker: str, *names: str) -> None:
    """Run the tests and print their outcomes."""
    settings.configure(
        SECRET_KEY="x", USE_TZ=True, INSTALLED_APPS=["taskapp.django"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )  # fmt: skip
    django.setup()
    for name in ("dummy", "immediate"):
        __import__(f"{PACKAGE}.backends.{name}")
    replace_backends(broker)
    sys.path.insert(0, folder)
    if names:
        suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    else:
        suite = unittest.defaultTestLoader.discover(str(Path(folder, "tasks")), top_level_dir=folder)
    runner = unittest.TextTestRunner(stream=sys.stderr, resultclass=Outcomes)
    sys.stdout.write("\n" + json.dumps(runner.run(suite).ended) + "\n")  # type: ignore[attr-defined]  # ours


if __name__ == "__main__":
    main(*sys.argv[1:])
