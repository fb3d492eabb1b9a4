"""Imports the modules of ``TASKAPP_INCLUDE`` for a command, as a node does, so that their setup applies to it."""

from __future__ import annotations

from typing import Any

from taskapp.cli.output import say_lines
from taskapp.errors.apps import ModuleNotImported


def import_included(app: Any) -> None:
    """Import the modules; if one cannot be imported, warn on stderr and continue without it.

    Raises:
        TaskappError: A module raised one, such as ``SigningPackageMissing``.
        click.ClickException: A setting is invalid.
    """
    try:
        app.loader.import_default_modules()
    except ModuleNotImported as error:
        lost = "its task types, signing and remote-control commands are unavailable here"
        say_lines(f"Warning: {error}; {lost}", err=True)
