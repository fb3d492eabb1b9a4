"""A copy of a project, its processes and its users, on stock Celery or on taskapp."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import Process, clean_environment, eventually
from tests.upstream.suites import on_taskapp

HERE = Path(__file__).parent
WAIT = 60.0
CELERY = (sys.executable, "-m", "celery")


class Project:
    """One of the projects beside this module, in a folder of its own: ``engine`` is ``stock`` or ``taskapp``."""

    def __init__(self, name: str, engine: str, folder: Path, *, app: str, **env: str) -> None:
        self.folder, self.engine, self.app = folder / name, engine, app
        shutil.copytree(HERE / name, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        if engine == "taskapp":
            self.change_the_line()
        path = os.pathsep.join([str(self.folder), str(Path.cwd())])
        self.env = clean_environment(PYTHONPATH=path, TASKAPP_DATA_DIR=str(folder / "data"), **env)
        self._started: list[Process] = []

    def change_the_line(self) -> None:
        """Import ``Celery`` from taskapp."""
        changed = []
        for module in self.folder.rglob("*.py"):
            text = module.read_text()
            if (new := on_taskapp(text)) != text:
                module.write_text(new)
                changed.append(module)
        assert len(changed) == 1, changed

    def start(self, *argv: str, name: str) -> Process:
        process = Process(list(argv), self.folder / f"{name}.log", self.env, cwd=self.folder)
        self._started.append(process)
        return process

    def workers(self, **options: tuple[str, ...]) -> list[Process]:
        """Start a worker for each name, with its options; return when they take tasks."""
        common = (*CELERY, "-A", self.app, "worker", "--without-mingle", "-l", "INFO")
        started = [self.start(*common, "-n", f"{name}@%h", *own, name=name) for name, own in options.items()]
        for worker in started:
            eventually(lambda worker=worker: " ready." in worker.output() or worker.returncode is not None, WAIT)
            assert worker.returncode is None, worker.output()
        return started

    def beat(self, *options: str) -> Process:
        return self.start(*CELERY, "-A", self.app, "beat", "-l", "INFO", *options, name="beat")

    def run(self, *argv: str, within_seconds: float = WAIT) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's folder."""
        return subprocess.run(
            argv, cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=within_seconds, check=False,
        )  # fmt: skip

    def celery(self, *argv: str) -> str:
        done = self.run(*CELERY, "-A", self.app, *argv)
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    def say(self, code: str) -> Any:
        """Run ``code`` in a process of the project; return what it leaves in ``said``."""
        done = self.run(sys.executable, "-c", f"import json\n{code}\nprint('\\n' + json.dumps(said))")
        assert not done.returncode, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def close(self) -> None:
        for process in self._started:
            process.kill()
