"""The beat program."""

from __future__ import annotations

from typing import Any

from celery.apps import beat as stock

from taskapp.settings import use_settings

_Stock: Any = stock.Beat  # the stubs are incomplete


class Beat(_Stock):
    """Celery's beat, which prints no banner if the log format is JSON."""

    def __init__(self, *arguments: Any, quiet: bool = False, **options: Any) -> None:
        use_settings(self.app.settings)
        super().__init__(*arguments, quiet=quiet or self.app.settings.log_format == "json", **options)
