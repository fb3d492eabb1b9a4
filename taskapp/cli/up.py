"""``taskapp up``: everything you need for development, in one terminal."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from taskapp import devredis
from taskapp.background import start_thread
from taskapp.cli.output import say
from taskapp.cli.target import SHIPPED, app_name
from taskapp.extras import require
from taskapp.processes import Program, Supervisor, celery_program, check_interrupted, python_program, stop_on_signals
from taskapp.sanitize import sanitize
from taskapp.schemes import check_schemes
from taskapp.settings import Settings, get_settings

COLOURS = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan", "bright_green")

DRAIN_SECONDS = 5.0
"""How long running tasks may take to finish on stop or reload."""


@click.command()
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(1, 32), help="Worker nodes to run.")
@click.option(
    "-c", "--concurrency", default=2, show_default=True, type=click.IntRange(1), help="Tasks at once per node."
)
@click.option("--flower-port", default=5555, show_default=True, help="Port of the dashboard.")
@click.option("--exporter-port", default=9540, show_default=True, help="Port of the Prometheus metrics.")
@click.option("--reload", is_flag=True, help="Restart workers and beat when a Python file in this folder changes.")
def up(*, nodes: int, concurrency: int, flower_port: int, exporter_port: int, reload: bool) -> None:
    """Run Redis, workers, beat, Flower and the exporter with your own tasks, until Ctrl-C.

    With TASKAPP_HISTORY, also runs the process that writes finished tasks to SQL.

    Restarts processes that die. Uses the server of TASKAPP_BROKER_URL or an embedded server
    that is already running, and leaves it running; otherwise starts one and stops it at the end.
    """
    if reload:
        require("reload", "taskapp up --reload")
    stop_on_signals()
    settings, app = get_settings(), app_name()
    check_schemes(settings)
    own = ("-m", "taskapp", *(() if app == SHIPPED else ("-A", app)))
    workers = [
        celery_program(f"node-{n}", "worker", "-n", f"node-{n}@%h", "-c", str(concurrency), "-l", "INFO", app=app)
        for n in range(1, nodes + 1)
    ]
    programs = [
        *workers,
        celery_program("beat", "beat", "-l", "INFO", app=app),
        celery_program("flower", "flower", f"--port={flower_port}", app=app),
        python_program("exporter", *own, "exporter", "--port", str(exporter_port)),
        *_history(settings, own),
    ]
    with server(settings):
        click.secho(
            f"Flower http://127.0.0.1:{flower_port}  metrics http://127.0.0.1:{exporter_port}/metrics", bold=True
        )
        say("Ctrl-C stops everything")
        # On stop or reload, nodes must return running tasks to their queues before the supervisor kills them.
        drain_seconds = min(settings.drain_seconds, DRAIN_SECONDS)
        environment = {**os.environ, "TASKAPP_DRAIN_SECONDS": f"{drain_seconds:g}"}
        supervisor = Supervisor(programs, on_line=_Printer(programs), env=environment)
        try:
            supervisor.start()
            _watch(supervisor, [program.name for program in (*workers, programs[nodes])] if reload else [])
        except KeyboardInterrupt:
            say("stopping …", err=True)
        finally:
            supervisor.stop()


def _history(settings: Settings, own: Sequence[str]) -> list[Program]:
    """Return the program that writes the history, if one is kept.

    Raises:
        HistoryPackageMissing, BadDatabaseURL: It could not run; better reported now than by a restarting program.
    """
    if not settings.keeps_history:
        return []
    from taskapp.monitor.history import open_history

    open_history(settings)
    return [python_program("history", *own, "history", "run")]


@contextmanager
def server(settings: Settings) -> Iterator[None]:
    """Provide a broker during the block; stop it afterwards if it was started here."""
    started: list[str] = []

    def announce(line: str) -> None:
        started.append(line)
        click.secho(sanitize(line), fg="yellow", err=True)

    devredis.resolve_broker_url(settings, may_start=True, announce=announce)
    try:
        yield
    finally:
        if started:
            devredis.stop(settings.data_dir)


class _Printer:
    """Prints lines with their program's name as a prefix, one at a time."""

    def __init__(self, programs: list[Program]) -> None:
        self._width = max(len(program.name) for program in programs)
        self._colour = {
            program.name: colour for program, colour in zip(programs, itertools.cycle(COLOURS), strict=False)
        }
        self._lock = threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        with self._lock:
            say(line, head=click.style(f"{name:<{self._width}} | ", fg=self._colour[name]))


def _watch(supervisor: Supervisor, reloaded: list[str]) -> None:
    changed = threading.Event()
    if reloaded:
        start_thread(_set_at_change, changed, name="reload")
    while True:
        check_interrupted()
        supervisor.revive()
        if changed.is_set():
            changed.clear()
            supervisor.on_line(reloaded[0], "code changed; restarting workers and beat")
            supervisor.restart(reloaded)
        time.sleep(0.2)


def _set_at_change(changed: threading.Event) -> None:
    from watchfiles import PythonFilter, watch

    for _ in watch(Path.cwd(), watch_filter=PythonFilter()):
        changed.set()
