"""Imports the modules of ``TASKAPP_INCLUDE`` for a command, as a node does: what they set up holds for it, too."""

from __future__ import annotations

from typing import Any

from taskapp.cli.output import say_lines
from taskapp.errors import ModuleNotImported


def import_included(app: Any) -> None:
    """Import the modules; warn on stderr of one that cannot be imported, and go on without it.

    Raises:
        TaskappError: A module raised one, such as ``SigningPackageMissing``.
        click.ClickException: A setting cannot be used.
    """
    try:
        app.loader.import_default_modules()
    except ModuleNotImported as error:
        lost = "task types, signing and remote-control commands that it sets up are not known here"
        say_lines(f"Warning: {error}; {lost}", err=True)
