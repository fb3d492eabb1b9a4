"""Runs the main job, from starting the server to checking the numbers."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from rich.console import Console

from taskapp import devredis
from taskapp.demo.flights import Truth, archive_path, split_by_month
from taskapp.demo.view import ProgressView, until
from taskapp.env_file import ENV_FILE_VARIABLE
from taskapp.errors import TaskappError
from taskapp.processes import (
    Program,
    Supervisor,
    celery_program,
    check_interrupted,
    free_port,
    python_program,
)
from taskapp.settings import PREFIX, forget_settings, get_settings

if TYPE_CHECKING:
    from taskapp.demo.check import Check

NODES = 2
SLOTS_PER_NODE = 2
CANARY_SECONDS = 2
START_WITHIN_SECONDS = 60.0
FINISH_WITHIN_SECONDS = 150.0
FLOWER_PORT = 5555
EXPORTER_PORT = 9540


class DemoFailed(TaskappError):
    """The demo could not finish."""


@dataclass(frozen=True)
class Workshop:
    """The demo's directories, temporary and permanent, and the ports of its servers."""

    temporary: Path
    output: Path
    flower_port: int
    exporter_port: int
    mail_port: int
    http_port: int

    @property
    def months(self) -> Path:
        """Directory with one CSV file per month."""
        return self.temporary / "flights"

    @property
    def mail(self) -> Path:
        """Directory with received mail."""
        return self.output / "mail"

    @property
    def logs(self) -> Path:
        """Directory with one log per process."""
        return self.output / "logs"

    @property
    def report(self) -> Path:
        """Path of the report."""
        return self.output / "report.html"

    @property
    def metrics(self) -> Path:
        """Path of the exporter's last metrics, in Prometheus' text format."""
        return self.output / "metrics.prom"

    def variables(self) -> dict[str, str]:
        """Return the settings of every process of the demo; the user's own are not used."""
        return {
            ENV_FILE_VARIABLE: "",
            "TASKAPP_DATA_DIR": str(self.temporary / "data"),
            "TASKAPP_FILE_DIRS": f"{self.months},{self.output}",
            "TASKAPP_HTTP_ALLOWED_HOSTS": f"127.0.0.1:{self.http_port}",
            "TASKAPP_SMTP_HOST": "127.0.0.1",
            "TASKAPP_SMTP_PORT": str(self.mail_port),
            "TASKAPP_CANARY_SECONDS": str(CANARY_SECONDS),
        }

    def programs(self) -> list[Program]:
        """Return the programs that run in addition to the Redis server."""
        nodes = [
            celery_program(
                f"node-{n}", "worker", "-n", f"node-{n}@%h", "-c", str(SLOTS_PER_NODE), "-l", "INFO",
                ready_line=" ready.",
            )
            for n in range(1, NODES + 1)
        ]  # fmt: skip
        return [
            python_program(
                "mail-sink", "-m", "taskapp.demo.mail_sink", "--port", str(self.mail_port),
                "--directory", str(self.mail),
                ready_line="listening",
            ),
            python_program(
                "flaky-server", "-m", "taskapp.demo.flaky_server", "--port", str(self.http_port), "--failures", "2",
                ready_line="listening",
            ),
            python_program(
                "exporter", "-m", "taskapp", "exporter", "--port", str(self.exporter_port), ready_line="http://"
            ),
            *nodes,
            celery_program("flower", "flower", f"--port={self.flower_port}", ready_line="Visit me"),
        ]  # fmt: skip

    def beat(self) -> Program:
        """Return beat, which is started once nodes can run what it sends."""
        return celery_program("beat", "beat", "-l", "INFO", ready_line="beat: Starting")


def run_demo(console: Console, output: Path, *, keep: bool) -> int:
    """Run the main job; return 0 if every check passed, else 1.

    Args:
        console: Where to print the progress.
        output: Directory for the report, mail and logs.
        keep: Keep everything running until Ctrl-C.
    """
    view = ProgressView(console)
    with ExitStack() as cleaning:
        temporary = Path(tempfile.mkdtemp(prefix="taskapp-demo-"))
        cleaning.callback(shutil.rmtree, temporary, ignore_errors=True)
        workshop = _prepare(temporary, output)
        _use_only(workshop.variables())
        _, truth = _split(view, workshop)
        cleaning.enter_context(_server(view))
        supervisor = Supervisor(workshop.programs(), FilePerProcess(workshop.logs), dict(os.environ))
        cleaning.callback(supervisor.stop)
        _start(view, supervisor, workshop)
        checks = _work(view, workshop, truth)
        _report(view, workshop, checks)
        if keep:
            _stay(view, workshop, supervisor)
        else:
            view.say("Flower and metrics stop now; `taskapp demo --keep` leaves them running to look at")
    return 0 if all(check.passed for check in checks) else 1


def _prepare(temporary: Path, output: Path) -> Workshop:
    archive_path()
    workshop = Workshop(
        temporary, output.resolve(),
        flower_port=free_port(FLOWER_PORT), exporter_port=free_port(EXPORTER_PORT),
        mail_port=free_port(), http_port=free_port(),
    )  # fmt: skip
    for old in (workshop.mail, workshop.logs):
        shutil.rmtree(old, ignore_errors=True)
    for directory in (workshop.months, workshop.mail, workshop.logs):
        directory.mkdir(parents=True)
    return workshop


def _use_only(variables: Mapping[str, str]) -> None:
    """Make ``variables`` the only settings of this process and its child processes."""
    for name in [name for name in os.environ if name.startswith((PREFIX, "CELERY_", "FLOWER_"))]:
        del os.environ[name]
    os.environ.update(variables)
    forget_settings()


def _split(view: ProgressView, workshop: Workshop) -> tuple[list[Path], Truth]:
    started = time.monotonic()
    paths, truth = split_by_month(archive_path(), workshop.months)
    view.say(f"{truth.flights:,} flights of 2013 split into {len(paths)} files in {time.monotonic() - started:.1f} s")
    return paths, truth


@contextmanager
def _server(view: ProgressView) -> Iterator[None]:
    data_dir = get_settings().data_dir
    server = devredis.ensure(data_dir)
    view.say(f"started {server.kind}-server {server.version} ({server.origin}), for this demo only")
    try:
        yield
    finally:
        devredis.stop(data_dir)


class FilePerProcess:
    """Writes the lines of each process to a separate file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, name: str, line: str) -> None:
        """Append ``line`` to the log of ``name``."""
        with (self.directory / f"{name}.log").open("a", encoding="utf-8") as log:
            log.write(line + "\n")


def _start(view: ProgressView, supervisor: Supervisor, workshop: Workshop) -> None:
    started = time.monotonic()
    supervisor.start()
    _wait_until_ready(supervisor, workshop)
    supervisor.add(workshop.beat())
    names = ", ".join(program.name for program in supervisor.programs)
    view.say(f"{len(supervisor.programs)} processes ready in {time.monotonic() - started:.1f} s: {names}")
    view.say(
        f"Flower http://127.0.0.1:{workshop.flower_port}  metrics http://127.0.0.1:{workshop.exporter_port}/metrics "
        "(while the demo runs)"
    )


def _wait_until_ready(supervisor: Supervisor, workshop: Workshop) -> None:
    deadline = time.monotonic() + START_WITHIN_SECONDS
    while waiting := supervisor.not_ready():
        check_interrupted()
        if dead := supervisor.dead():
            name = next(iter(dead))
            raise DemoFailed(f"{name} ended with exit code {dead[name]}; see {workshop.logs / name}.log")
        if time.monotonic() > deadline:
            raise DemoFailed(
                f"{', '.join(waiting)} did not start within {START_WITHIN_SECONDS:g} s; see {workshop.logs}"
            )
        time.sleep(0.05)


def _work(view: ProgressView, workshop: Workshop, truth: Truth) -> list[Check]:
    # Imported here: the pipeline's task types read the settings that were just set.
    from taskapp.demo.check import checks_of
    from taskapp.demo.nodes import Nodes
    from taskapp.demo.pipeline import Pipeline
    from taskapp.demo.timed import Timed

    started = time.monotonic()
    pipeline = Pipeline(workshop.months, workshop.report, workshop.http_port)
    pipeline.submit()
    timed = Timed()
    timed.start()
    with Nodes(SLOTS_PER_NODE).watched() as nodes, view.drawing():
        finished = until(pipeline.finished, view, lambda: pipeline.picture(nodes), FINISH_WITHIN_SECONDS)
    if not finished:
        raise DemoFailed(
            f"not finished within {FINISH_WITHIN_SECONDS:g} s: {pipeline.unfinished()}; see {workshop.logs}"
        )
    seconds = time.monotonic() - started
    view.table("Steps", ["step", "tasks", "retries", "seconds"], [*pipeline.rows(), ["all", "", "", f"{seconds:.1f}"]])
    checks = checks_of(
        pipeline, truth, report=workshop.report, mail=workshop.mail, exporter_port=workshop.exporter_port
    )  # fmt: skip
    return [*checks, *timed.checks()]


def _report(view: ProgressView, workshop: Workshop, checks: list[Check]) -> None:
    view.table("Checks", ["", "observed"], [[f"{check.mark} {check.name}", check.seen] for check in checks])
    view.say(f"report  {workshop.report}")
    view.say(f"mail    {next(iter(sorted(workshop.mail.glob('*.eml'))), 'none')}")
    view.say(f"logs    {workshop.logs}")
    scrape = httpx.get(f"http://127.0.0.1:{workshop.exporter_port}/metrics", trust_env=False)
    workshop.metrics.write_bytes(scrape.content)
    view.say(f"metrics {workshop.metrics}")


def _stay(view: ProgressView, workshop: Workshop, supervisor: Supervisor) -> None:
    view.say(f"metrics http://127.0.0.1:{workshop.exporter_port}/metrics")
    view.say(f"Flower  http://127.0.0.1:{workshop.flower_port}")
    view.say("everything keeps running; Ctrl-C stops it")
    try:
        while True:
            check_interrupted()
            supervisor.revive()
            time.sleep(0.5)
    except KeyboardInterrupt:
        view.say("stopping …")
