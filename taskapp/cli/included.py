"""Imports the modules of ``TASKAPP_INCLUDE`` for a command, as a node does: what they set up holds for it, too."""

from __future__ import annotations

from typing import Any

import click

from taskapp.cli.output import say_lines
from taskapp.errors import TaskappError


def import_included(app: Any) -> None:
    """Import the modules; of one that cannot be imported say so in a line on stderr, and go on without it.

    Raises:
        TaskappError: A module raised one, such as ``SigningPackageMissing``.
        click.ClickException: A setting cannot be used.
    """
    try:
        app.loader.import_default_modules()
    except (TaskappError, click.ClickException):
        raise
    except Exception as error:  # noqa: BLE001 - of a module of the user's: whatever it raises
        why = f"{type(error).__name__}: {error}"
        lost = "task types, signing and remote-control commands that it sets up are not known here"
        say_lines(f"taskapp: TASKAPP_INCLUDE cannot be imported: {why}; {lost}", err=True)
