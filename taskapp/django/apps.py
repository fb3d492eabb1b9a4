"""The Django app ``taskapp.django``."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig
from django.conf import settings


class TaskappConfig(AppConfig):
    """Configuration of the app; its label, and so the prefix of its tables, is ``taskapp``."""

    name = "taskapp.django"
    label = "taskapp"
    verbose_name = "taskapp"

    def ready(self) -> None:
        """Register the task types of Django's tasks, if the project uses the backend: nodes need them."""
        backends = getattr(settings, "TASKS", None) or {}
        if any(str(entry.get("BACKEND", "")).startswith(f"{self.name}.") for entry in backends.values()):
            import_module(f"{self.name}.running")
