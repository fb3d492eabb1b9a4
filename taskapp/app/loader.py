"""Loads the modules of task types, and says why one cannot be imported."""

from __future__ import annotations

from typing import Any

import click
from celery.loaders.app import AppLoader

from taskapp.app.task_modules import not_imported
from taskapp.errors import TaskappError


class TaskLoader(AppLoader):
    """Celery's loader with one-line errors."""

    def import_task_module(self, module: str) -> Any:
        """Import a module of task types.

        Raises:
            ModuleNotImported: It cannot be imported; names the cause and its place.
            TaskappError: The module raised one itself, such as ``SigningPackageMissing``.
        """
        try:
            return super().import_task_module(module)
        except (TaskappError, click.ClickException):
            raise
        except Exception as error:
            app: Any = self.app
            setting = "TASKAPP_INCLUDE" if module in app.settings.include else "imports or include"
            raise not_imported(module, setting, error) from error
