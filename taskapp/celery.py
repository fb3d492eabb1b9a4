"""The Celery application; the only place where the parts are wired together.

``celery -A taskapp worker`` finds ``app`` here. Importing this module reads no settings and opens
no connection; both happen at the first use of ``app.conf``.
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


def in_django_project() -> bool:
    """Return whether Celery's Django fixup is at work here; it gives its own class only to apps that have none."""
    return bool(os.environ.get("DJANGO_SETTINGS_MODULE")) and find_spec("django") is not None


def _before_command(context: click.Context, _option: click.Parameter, _value: object) -> None:
    """Give Flower our defaults: its command has no other place where an app can take part. Show errors as sentences."""
    context.with_resource(symbol_by_name("taskapp.cli.celery_commands:errors_in_one_line")(context))
    if context.info_name == "flower":
        symbol_by_name("taskapp.monitor.flower:configure")()


def _before_run(context: click.Context, _option: click.Parameter, _value: object) -> None:
    """Import the user's modules and check what was typed: Click calls this last, when all options have been read."""
    if not context.resilient_parsing:
        symbol_by_name("taskapp.cli.celery_commands:prepare")(context)


def _add_own_task_types(sender: Any, **_: Any) -> None:
    """Register the task types that Celery's canvas is made of, once there is an app to register them with."""
    symbol_by_name("taskapp.app.chord_task:install")(sender)
    symbol_by_name("taskapp.app.maps:register_maps")(sender)


def _become_node(sender: Any, **_: Any) -> None:
    """Make a worker of ours a node."""
    if sender.app is app:
        symbol_by_name("taskapp.worker.bootsteps:prepare")(sender)


def _start_over_in_child() -> None:
    """Let go of the connections a forked web worker inherited."""
    symbol_by_name("taskapp.app.after_fork:start_over")(app)


app = Application(
    "taskapp",
    loader="taskapp.app.loader:Loader",  # a text: Celery's Django fixup looks for a word in it
    amqp="taskapp.app.amqp:Amqp",
    control="taskapp.client.control:Control",
    events="taskapp.worker.consume.events:Events",
    log="taskapp.logs:Logging",
    task_cls="taskapp.app.django_task:DjangoTask" if in_django_project() else "taskapp.app.task:Task",
    tasks=Registry(),
)
app.user_options["preload"] |= {
    click.Option(["--taskapp"], hidden=True, is_flag=True, is_eager=True, expose_value=False, callback=_before_command),
    click.Option(["--taskapp-run"], hidden=True, is_flag=True, expose_value=False, callback=_before_run),
}
app.on_after_finalize.connect(_add_own_task_types, weak=False)
signals.worker_init.connect(_become_node, weak=False)
os.register_at_fork(after_in_child=_start_over_in_child)
app.set_default()  # a @shared_task called in a web server's thread finds this app
