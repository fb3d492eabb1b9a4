"""The app that a command works on: that of ``taskapp -A proj``, or the one that ships."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskapp.errors import TaskappError

if TYPE_CHECKING:
    from taskapp.app.application import Celery

NAME = "taskapp.app"
"""Key in Click's context for what was given as ``-A``."""
FOUND = "taskapp.found_app"
SHIPPED = "taskapp"
"""What ``celery -A`` is given for the app that ships."""


def app_name() -> str:
    """Return what to give ``celery -A`` for the app of this command."""
    context = click.get_current_context(silent=True)
    return (context and context.meta.get(NAME)) or SHIPPED


def own_command() -> str:
    """Return how to call ``taskapp`` for the app of this command, for advice."""
    return "taskapp" if app_name() == SHIPPED else f"taskapp -A {app_name()}"


def choose(name: str) -> None:
    """Make ``name`` the app of this command."""
    click.get_current_context().meta[NAME] = name


def chosen_app() -> Celery:
    """Return the app of this command, imported on first use; its settings become those of this program.

    Raises:
        click.ClickException: It cannot be imported, or is not one of taskapp's.
    """
    context = click.get_current_context(silent=True)
    name = app_name()
    if context is None or name == SHIPPED:
        from taskapp.celery import app

        return app
    if FOUND not in context.meta:
        context.meta[FOUND] = _find(name)
    found: Celery = context.meta[FOUND]
    return found


def _find(name: str) -> Celery:
    from celery import Celery as StockCelery
    from celery.app.utils import find_app

    from taskapp.app.application import Celery
    from taskapp.settings import use_settings

    try:
        found: Any = find_app(name)
        if isinstance(found, StockCelery):
            found.conf.finalize()  # with ``taskapp.loader``, it becomes one of taskapp's now
        if not isinstance(found, Celery):
            raise click.ClickException(f"{name!r} is {_described(found)}; {_remedy(name, found)}")
        use_settings(found.settings)
    except (TaskappError, click.ClickException):
        raise
    except Exception as error:
        raise click.ClickException(f"the app {name!r} of -A cannot be loaded: {_why(name, error)}") from error
    return found


def _why(name: str, error: Exception) -> str:
    module, _, variable = name.partition(":")
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        # Celery takes a variable that is not there for a module.
        if variable and error.name and (error.name == name or error.name.startswith(f"{module}:")):
            return f"the module {module!r} has no {variable!r}; name the variable that holds the app"
        return f"{reason}; is there a module of that name in {str(Path.cwd())!r} or on PYTHONPATH?"
    if isinstance(error, AttributeError) and str(error) == f"module {module!r} has no attribute 'celery'":
        return f"no app was found in the module {module!r}; name its module and variable, as in -A {module}.celery:app"
    return reason


def _remedy(name: str, found: Any) -> str:
    from celery import Celery as StockCelery

    if isinstance(found, StockCelery):
        return "create it with `from taskapp import Celery` to use it here"
    module = name.partition(":")[0]
    for variable, value in vars(sys.modules.get(module, None) or object).items():
        if isinstance(value, StockCelery):
            return f"the app is {variable!r}: give -A {module}:{variable}"
    return f"name the variable that holds the app, as in -A {module}:app"


def _described(found: Any) -> str:
    from celery import Celery as StockCelery

    if isinstance(found, StockCelery):
        return "an app of stock Celery"
    return f"no Celery app but a {type(found).__name__}"
