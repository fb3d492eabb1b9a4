"""A real node for tests: a process of its own, on an embedded Redis server of its own, in a directory of its own.

real_worker(app) ──► embedded server ──► celery -A module:app worker
      └─ the app of this process submits to the same server until the end
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

from taskapp import devredis
from taskapp.app.application import Celery
from taskapp.app.configuration import configuration
from taskapp.client.submitter import Submitter
from taskapp.devredis.home import home_of, read_record
from taskapp.errors.testing import NoAppToTest, WorkerNotStarted
from taskapp.processes import Supervisor, celery_program
from taskapp.testing.internals import app_parts, current_app_of_thread, set_app_parts, set_current_apps

START_SECONDS = 60.0
STOP_SECONDS = 20.0
LOOK_SECONDS = 0.05
LOG_TAIL_LINES = 30
NO_HOMES = frozenset({"__main__", "celery", "pytest_celery", "taskapp"})
"""Packages in which no project has its app or its tasks."""
MERGED = ("broker_transport_options", "result_backend_transport_options")
ALONE = {"broker_use_ssl": None, "redis_backend_use_ssl": None, "task_always_eager": False}
"""Settings that would lead away from the server of the test."""


class RealWorker:
    """A running node."""

    def __init__(self, app: Any, url: str, log: list[str]) -> None:
        self.app = app
        self.url = url
        """URL of its server, with the password, which also keeps the results."""
        self._log = log

    @property
    def log(self) -> str:
        """What the node has printed."""
        return "\n".join(self._log)


@contextmanager
def real_worker(app: Any, directory: Path, *options: str) -> Iterator[RealWorker]:
    """Run a node for ``app``, whose tasks go there until the end; stop it and its server, and remove their files.

    Args:
        app: A ``taskapp.Celery`` in a module, so that another process can import it.
        directory: An empty directory for the server.
        options: Options of ``celery worker``, such as ``-c 1``; default: two threads.

    Raises:
        NoAppToTest: No module has ``app``, or it is something else.
        BrokerNotFound: There is no server program; the error says what to install.
        EmbeddedServerFailed, WorkerNotStarted: One of them did not become ready in time.
    """
    target = where_is(app)
    server = devredis.ensure(directory, over="tcp")
    try:
        record = read_record(home_of(directory))
        url = server.url.replace("://", f"://:{record.password if record else ''}@")
        log: list[str] = []
        with _app_on(app, url), _node(app, target, url, directory, options or ("-c", "2"), log):
            yield RealWorker(app, url, log)
    finally:
        devredis.stop(directory)
        shutil.rmtree(directory, ignore_errors=True)


def where_is(app: Any) -> str:
    """Return ``module:name`` of ``app``, as for ``celery -A``.

    Raises:
        NoAppToTest: It is no ``taskapp.Celery``, or no imported module has it.
    """
    if not isinstance(app, Celery):
        raise NoAppToTest(f"{app!r} is no taskapp.Celery")
    if app.ships_task_types:
        return "taskapp"
    found = [
        (_rank(module, app), f"{module}:{name}")
        for module, content in list(sys.modules.items())
        if module.partition(".")[0] not in NO_HOMES
        for name, value in list(getattr(content, "__dict__", {}).items())
        if value is app
    ]
    if found:
        return min(found, key=itemgetter(0))[1]
    raise NoAppToTest(f"{app!r} is in no module, from which the process of a node could import it")


def _rank(module: str, app: Any) -> int:
    """Return how unlikely ``module`` is to be where ``app`` is made: others, such as tests, import it from there."""
    if module == app.main or module.partition(".")[0] == str(app.main).partition(".")[0]:
        return 0
    name = module.rpartition(".")[2]
    return 2 if name.startswith("test_") or name == "conftest" else 1


@contextmanager
def _app_on(app: Any, url: str) -> Iterator[None]:
    """Let ``app`` in this process use the server at ``url``."""
    conf, current = app.conf, current_app_of_thread()
    app.set_current()
    values = configuration(app.settings, url, ships_task_types=app.ships_task_types)
    values["broker_transport_options"]["queue_order"] = ()  # for the node alone to know
    changes = {
        **ALONE, "broker_url": url, "broker_read_url": url, "broker_write_url": url, "result_backend": url,
        **{name: {**values[name], **(conf.get(name) or {}), "own_server": None} for name in MERGED},
    }  # fmt: skip
    before, parts, submitter = dict(conf.changes), app_parts(app), app.__dict__.get("submitter")
    conf.changes.update(changes)
    set_app_parts(app, None, None, None)
    app.__dict__["submitter"] = Submitter(app)
    try:
        yield
    finally:
        for name in changes:
            conf.changes.pop(name, None)
        conf.changes.update({name: before[name] for name in changes if name in before})
        set_app_parts(app, *parts)
        app.__dict__.pop("submitter")
        if submitter is not None:
            app.__dict__["submitter"] = submitter
        set_current_apps(*current)


@contextmanager
def _node(
    app: Any, target: str, url: str, directory: Path, options: Sequence[str], log: list[str]
) -> Iterator[None]:  # fmt: skip
    modules = {task.__module__ for task in app.tasks.values()}
    included = [name for name in sorted(modules) if name.partition(".")[0] not in NO_HOMES]
    include = ["-I", ",".join(included)] if included else []
    node = celery_program("node", "worker", "-l", "INFO", *include, *options, ready_line=" ready.", app=target)
    supervisor = Supervisor([node], lambda _, line: log.append(line), _environment(url, directory))
    supervisor.start()
    try:
        with _guarded(supervisor.pids()["node"], directory):
            _wait_until_ready(supervisor, log)
            yield
    finally:
        supervisor.stop(STOP_SECONDS)


@contextmanager
def _guarded(pid: int, directory: Path) -> Iterator[None]:
    """Let another process clean up if this one is killed."""
    argv = [sys.executable, "-m", "taskapp.testing.guard", str(pid), str(directory)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, env=_with_paths()
    ) as guard:
        try:
            yield
        finally:
            guard.communicate(b"x")


def _with_paths() -> dict[str, str]:
    paths = [path or str(Path.cwd()) for path in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _environment(url: str, directory: Path) -> dict[str, str]:
    urls = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND")
    return {**_with_paths(), **dict.fromkeys(urls, url), "TASKAPP_DATA_DIR": str(directory)}


def _wait_until_ready(supervisor: Supervisor, log: list[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while supervisor.not_ready():
        dead = supervisor.dead()
        if dead or time.monotonic() > deadline:
            problem = (
                f"it ended with exit code {dead['node']}" if dead else f"it was not ready after {START_SECONDS:g} s"
            )
            raise WorkerNotStarted(problem, "\n".join(log[-LOG_TAIL_LINES:]))
        time.sleep(LOOK_SECONDS)
