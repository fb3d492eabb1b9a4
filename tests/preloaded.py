"""Starts Python from a process that has imported what nodes and commands import: seconds less for each.

    test ──► Preloaded.start ──► server: forks ──► the child runs, as a new process does

No environment is read before the fork but the server's own: ``fits`` says which processes differ in nothing that
matters. Of taskapp all is imported before but the app, and the child leaves the interpreter without clearing it; where
every test runs (``THOROUGH``) the child imports taskapp itself and ends as a new process does.
"""

from __future__ import annotations

import array
import atexit
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = (
    "celery.bin.celery", "celery.bin.worker", "celery.apps.worker", "celery.bin.beat", "celery.apps.beat",
    "celery.worker.consumer", "celery.worker.components", "celery.worker.autoscale", "celery.worker.strategy",
    "celery.worker.control", "celery.worker.pidbox", "celery.worker.heartbeat", "celery.events.state",
    "celery.app.control", "celery.app.trace", "celery.app.events", "celery.app.log", "celery.app.amqp",
    "celery.app.builtins", "celery.backends.redis", "celery.concurrency.prefork", "celery.fixups.django",
    "kombu.transport.redis", "kombu.transport.pyamqp", "kombu.pools", "kombu.asynchronous.hub", "kombu.pidbox",
    "billiard.pool", "pydantic", "pydantic.deprecated", "redis.asyncio", "redis.sentinel", "uvloop", "msgspec",
    "dateutil.parser", "yaml", "pythonjsonlogger", "asyncio", "concurrent.futures.thread", "email.message",
    "http.client", "urllib.request", "platformdirs", "tzlocal", "zoneinfo", "sqlalchemy", "sqlalchemy.dialects.sqlite",
    "tornado.web", "tornado.httpserver", "prometheus_client", "wsgiref.simple_server",
    "celery.worker.consumer.delayed_delivery", "dotenv", "email.headerregistry", "pydantic.json_schema",
    "pydantic.main", "pydantic.networks", "pydantic.plugin._loader", "pydantic.type_adapter", "pydantic.types",
    # Django reads its settings, and the variable that names them, when they are first asked for.
    "django.core.management.commands.migrate", "django.db.models", "django.db.migrations.executor",
    "django.core.management", "django.db.backends.sqlite3.base", "django.db.backends.postgresql.base",
    "django.core.handlers.wsgi", "django.tasks", "psycopg",
)  # fmt: skip
NOT_OURS = (
    "taskapp.app.django_task", "taskapp.demo", "taskapp.django", "taskapp.flask", "taskapp.tasks",
    "taskapp.tracing.provider",
)  # fmt: skip
"""Modules of ours that import what most processes need not."""
THOROUGH = "TESTS_THOROUGH"
"""The variable with which ``make test-all`` says that thoroughness comes first."""
READ_EARLY = ("LD_", "MALLOC", "OTEL_", "PYTHON", "TZ")
"""How variables begin that may be read before the fork."""
READ_LATE = ("PYTHONPATH", "PYTHONUNBUFFERED")


def fits(argv: list[str], env: Mapping[str, str]) -> bool:
    """Return whether a process can be forked that differs in nothing from one that is started."""
    known = argv[1:2] == ["-c"] or argv[1:3] in (["-m", "celery"], ["-m", "django"], ["-m", "taskapp"])
    if argv[0] != sys.executable or not known or not hasattr(os, "pidfd_open"):
        return False
    if {"gevent", "eventlet"} & {*argv}:
        return False  # they patch modules before those are imported
    if any(Path(folder, "sitecustomize.py").exists() for folder in env.get("PYTHONPATH", "").split(os.pathsep)):
        return False
    changed = {name for name in {*env, *os.environ} if env.get(name) != os.environ.get(name)}
    return not any(name.startswith(READ_EARLY) for name in changed - {*READ_LATE})


class Forked:
    """A process that the server has forked, as ``subprocess.Popen`` shows one."""

    def __init__(self, pid: int, ended: socket.socket, argv: Sequence[str]) -> None:
        self.pid, self.args, self.returncode = pid, argv, None
        self._ended = ended
        self._waiting = threading.Lock()

    returncode: int | None

    def poll(self) -> int | None:
        """Return the exit code, ``None`` while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        waiting = select.poll()  # ``select`` takes no descriptor above 1,023
        if self.returncode is None:
            with suppress(ValueError):  # another thread has just closed it
                waiting.register(self._ended, select.POLLIN)
                if not waiting.poll(None if timeout is None else timeout * 1_000):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        with self._waiting:
            if self.returncode is None:
                told = self._ended.recv(16)
                self.returncode = int(told or -signal.SIGKILL)
                self._ended.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Preloaded:
    """The server, which lives as long as this process."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, str(Path(__file__)), str(theirs.fileno())],
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip

    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path | None, out: int, err: int) -> Forked:
        """Start Python in a session of its own; it writes into the descriptors ``out`` and ``err``."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asked = json.dumps({"argv": argv[1:], "env": dict(env), "cwd": str(cwd or Path.cwd())}).encode()
        with theirs:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [out, err, theirs.fileno()]))]
            self._control.sendmsg([asked], rights)
        return Forked(int(ours.recv(16)), ours, argv)


# --- the server ---------------------------------------------------------------------------------------


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork as often as asked; return in each child what it is to run, and ``None`` when nobody can ask any more."""
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        readable, _, _ = select.select([control, *running], [], [])
        for handle in set(readable) & set(running):
            pid, told = running.pop(handle)
            os.close(handle)
            with told, suppress(OSError):
                told.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
        if control not in readable:
            continue
        asked, rights, *_ = control.recvmsg(1 << 20, socket.CMSG_SPACE(12))
        if not asked:
            return None
        out, err, ended = array.array("i", rights[0][2])
        pid = os.fork()
        if pid == 0:
            os.dup2(out, 1)
            os.dup2(err, 2)
            return json.loads(asked)
        os.close(out)
        os.close(err)
        told = socket.socket(fileno=ended)
        told.send(str(pid).encode())
        running[os.pidfd_open(pid)] = (pid, told)


def become(asked: dict[str, Any]) -> None:
    """Be a new process: the environment, the folder, the paths and the streams that it would have."""
    os.setsid()
    os.closerange(3, 1_024)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = asked["argv"][1:]
    if "taskapp.execution.failures" in sys.modules:
        sys.modules["taskapp.execution.failures"].main_pid = os.getpid()  # type: ignore[attr-defined]
        sys.modules["taskapp.execution.forked"].forks = 0  # type: ignore[attr-defined]
    folders = asked["env"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = ["" if asked["argv"][0] == "-c" else asked["cwd"], *(folder for folder in folders if folder)]
    if asked["env"].get("PYTHONUNBUFFERED"):
        for number, name in ((1, "stdout"), (2, "stderr")):
            errors = getattr(sys, name).errors
            raw = io.FileIO(number, "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(raw, encoding="utf-8", errors=errors, write_through=True))


def run(how: str, what: str) -> None:
    """Run a module, or a text, as the main one."""
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    main = ModuleType("__main__")
    sys.modules["__main__"], sys.argv[0] = main, "-c"
    exec(compile(what, "<string>", "exec"), main.__dict__)


def preload(*, ours: bool) -> None:
    """Import what others wrote, and with ``ours`` what we did, except what makes the app."""
    import importlib

    del sys.path[0]  # the folder of this file
    for name in MODULES:
        with suppress(ImportError):
            importlib.import_module(name)
    assert not [name for name in sys.modules if name.partition(".")[0] in ("taskapp", "tests")]
    if ours:
        _preload_ours(Path(__file__).parents[1])
    gc.freeze()


def _preload_ours(root: Path) -> None:
    import importlib

    sys.path.insert(0, str(root))
    sys.modules["taskapp.celery"] = None  # type: ignore[assignment]
    for path in sorted(root.glob("taskapp/**/*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        if not name.endswith("__main__") and not any(f"{name}.".startswith(f"{no}.") for no in NOT_OURS):
            with suppress(Exception):  # it needs the app, or something that is not installed or not set up
                importlib.import_module(name)
    del sys.modules["taskapp.celery"], sys.path[0]


def leave(status: object) -> None:
    """Do what the interpreter does at its end, except clearing every module: that copies all memory after a fork."""
    threading._shutdown()
    atexit._run_exitfuncs()
    if status is not None and not isinstance(status, int):
        sys.stderr.write(f"{status}\n")
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((status or 0) & 0xFF)


def main() -> None:
    thorough = os.environ.get(THOROUGH) == "1"
    preload(ours=not thorough)
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        to_run = serve(listening)
    if to_run is None:
        return
    become(to_run)
    status: object = None
    try:
        run(*to_run["argv"][:2])
    except SystemExit as end:
        if thorough:
            raise
        status = end.code
    if not thorough:
        leave(status)


if __name__ == "__main__":
    main()
