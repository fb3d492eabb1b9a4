"""The worker program, which reports invalid configuration in one line before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
from celery.apps import worker as stock
from celery.utils.imports import symbol_by_name
from celery.utils.nodenames import default_nodename
from celery.utils.text import str_to_list

from taskapp.app.own_strategy import check_strategy
from taskapp.celery_internals import drain_on
from taskapp.client.limits.of_call import check_broker
from taskapp.errors import TaskappError
from taskapp.probes.health import Status
from taskapp.probes.status_file import Reporter
from taskapp.settings import get_settings, use_settings
from taskapp.transport.transport import is_over_redis
from taskapp.worker.consume.request_class import request_class
from taskapp.worker.drain import AT_ONCE
from taskapp.worker.process.first_process import run_below_first_process

EXIT_CONFIGURATION = 78
"""sysexits.h: something was found in an unconfigured or misconfigured state."""

# The stubs are incomplete.
_Stock: Any = stock.Worker
_nodename: Any = default_nodename
_on_ctrl_c: Any = stock.install_worker_int_handler  # type: ignore[attr-defined]


class Worker(_Stock):
    """Celery's worker, visible to probes from its start and draining on stop signals."""

    def __init__(self, app: Any = None, hostname: str | None = None, **options: Any) -> None:
        run_below_first_process()
        settings = (app or self.app).settings
        use_settings(settings)
        # Before importing task types, which may take long, so that probes see a starting node.
        self.reporter = Reporter(settings.data_dir, Status(_nodename(hostname)))
        self.reporter.start()
        super().__init__(app, hostname, **options)

    def emit_banner(self) -> None:
        """Print the banner, unless the log format is JSON.

        A closed pipe or a full disk does not keep the worker from running.
        """
        if get_settings().log_format == "json":
            return
        with suppress(OSError):
            super().emit_banner()

    def install_platform_tweaks(self, worker: Any) -> None:
        """Handle signals as Celery does, but treat a first Ctrl-C or a closed terminal as SIGTERM: drain, exit with 0.

        Signals that end a node at once start a drain without any time left. Celery would cancel running tasks instead,
        which most pools cannot do, and which would fail tasks that have to run again.
        """
        super().install_platform_tweaks(worker)
        _on_ctrl_c(worker, exitcode=0)
        if self._isatty:
            # Otherwise a closed terminal would count as a crash. Without a terminal, SIGHUP restarts the worker.
            drain_on(worker, "SIGHUP")
        for name in AT_ONCE:
            drain_on(worker, name)

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Choose the queues to consume from.

        Raises:
            UnknownQueue: A queue is not in ``TASKAPP_QUEUES``; on the command line, exits with 2.
        """
        with _in_one_line(_BadUsage):
            for name in (*(str_to_list(include) or ()), *(str_to_list(exclude) or ())):
                self.app.check_queue(name)
        super().setup_queues(include, exclude)

    def on_init_blueprint(self) -> None:
        """Check the task types before any task runs.

        Raises:
            StrategyCannotRun, BadRequestClass, LimitNeedsRedis: A task type is misconfigured; exits with 78.
        """
        super().on_init_blueprint()
        with _in_one_line(_BadConfiguration):
            for task in self.app.tasks.values():
                _ = task.app  # binds a task type that was registered after the app was finalized
                check_strategy(task)
                if not is_over_redis(self.app.conf.broker_read_url):
                    check_broker(task.name, task, {})
                request_class(symbol_by_name(task.Request))
        import_checks(self.app.tasks.values())


def import_checks(task_types: Iterable[Any]) -> None:
    """Import pydantic if one of the user's ``task_types`` is ``typed``: when it runs, there may be no free descriptor.

    A module that defines a model has imported it already, and task types that ship load what they need when they run.
    """
    if any(getattr(task, "typed", False) and not task.__module__.startswith("taskapp.") for task in task_types):
        import taskapp.app.payload  # noqa: F401


class _BadUsage(click.ClickException):
    exit_code = 2


class _BadConfiguration(click.ClickException):
    exit_code = EXIT_CONFIGURATION


@contextmanager
def _in_one_line(shown_as: type[click.ClickException]) -> Iterator[None]:
    """On the command line, show a ``TaskappError`` in one line without a traceback."""
    try:
        yield
    except TaskappError as error:
        if click.get_current_context(silent=True) is None:
            raise
        raise shown_as(str(error)) from error
