"""The Celery application, wired together in this module.

``celery -A taskapp worker`` finds ``app`` here. Importing this module reads no settings and opens
no connection; both happen on the first use of ``app.conf``.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import click
from celery import signals
from celery.utils.imports import symbol_by_name

from taskapp.app.application import Application
from taskapp.app.registry import Registry
from taskapp.background import in_child


def in_django_project() -> bool:
    """Return whether Celery's Django fixup is active; it sets its own task class only for apps without one."""
    return bool(os.environ.get("DJANGO_SETTINGS_MODULE")) and find_spec("django") is not None


def _before_command(context: click.Context, _option: click.Parameter, _value: object) -> None:
    """Show errors in one line; set Flower's defaults, because its command offers an app no other hook."""
    context.with_resource(symbol_by_name("taskapp.cli.celery_commands:errors_in_one_line")(context))
    if context.info_name == "flower":
        symbol_by_name("taskapp.monitor.flower:configure")()


def _before_run(context: click.Context, _option: click.Parameter, _value: object) -> None:
    """Import the user's modules and check the command line: Click calls this last, after parsing all options."""
    if not context.resilient_parsing:
        symbol_by_name("taskapp.cli.celery_commands:prepare")(context)


def _add_own_task_types(sender: Any, **_: Any) -> None:
    """Register the task types of the canvas, once the app is finalized."""
    symbol_by_name("taskapp.app.chord_task:install")(sender)
    symbol_by_name("taskapp.app.maps:register_maps")(sender)


def _become_node(sender: Any, **_: Any) -> None:
    """Turn a worker of this app into a node."""
    if sender.app is app:
        symbol_by_name("taskapp.worker.bootsteps:prepare")(sender)


def _start_over_in_child() -> None:
    """Drop the connections that a forked web worker inherited."""
    symbol_by_name("taskapp.app.after_fork:start_over")(app)


app = Application(
    "taskapp",
    loader="taskapp.app.loader:Loader",  # a string, because Celery's Django fixup searches it
    amqp="taskapp.app.amqp:Amqp",
    control="taskapp.client.control:Control",
    events="taskapp.worker.consume.events:Events",
    log="taskapp.logs.setup:Logging",
    task_cls="taskapp.app.django_task:DjangoTask" if in_django_project() else "taskapp.app.task:Task",
    tasks=Registry(),
)
app.user_options["preload"] |= {
    click.Option(["--taskapp"], hidden=True, is_flag=True, is_eager=True, expose_value=False, callback=_before_command),
    click.Option(["--taskapp-run"], hidden=True, is_flag=True, expose_value=False, callback=_before_run),
}
app.on_after_finalize.connect(_add_own_task_types, weak=False)
signals.worker_init.connect(_become_node, weak=False)
in_child(_start_over_in_child)
app.set_default()  # so that a @shared_task called in a web server's thread finds this app
