"""What every app adds to Celery's commands, and to its own task types."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import click
from celery.utils.imports import symbol_by_name


def preload_options() -> set[Any]:
    """Return hidden options of every ``celery`` command, whose callbacks run before it and after it was parsed."""
    return {
        click.Option(
            ["--taskapp"], hidden=True, is_flag=True, is_eager=True, expose_value=False, callback=_before_command
        ),
        click.Option(["--taskapp-run"], hidden=True, is_flag=True, expose_value=False, callback=_before_run),
    }


def _before_command(context: click.Context, _option: click.Parameter, _value: object) -> None:
    """Show errors in one line; set Flower's defaults, because its command offers an app no other hook."""
    context.with_resource(symbol_by_name("taskapp.cli.celery_commands:errors_in_one_line")(context))
    if context.info_name == "flower":
        symbol_by_name("taskapp.monitor.flower:configure")()


def _before_run(context: click.Context, _option: click.Parameter, _value: object) -> None:
    """Import the user's modules and check the command line: Click calls this last, after parsing all options."""
    if not context.resilient_parsing:
        symbol_by_name("taskapp.cli.celery_commands:prepare")(context)


def add_own_task_types(sender: Any, **_: Any) -> None:
    """Register the task types of the canvas, once the app is finalized."""
    symbol_by_name("taskapp.app.chord_task:install")(sender)
    symbol_by_name("taskapp.app.maps:register_maps")(sender)


def in_django_project() -> bool:
    """Return whether Celery's Django fixup is active; it sets its own task class only for apps without one."""
    return bool(os.environ.get("DJANGO_SETTINGS_MODULE")) and find_spec("django") is not None


def task_class() -> str:
    """Return the base class of task types: in a Django project with ``delay_on_commit``."""
    return "taskapp.app.django_task:DjangoTask" if in_django_project() else "taskapp.app.task:Task"
