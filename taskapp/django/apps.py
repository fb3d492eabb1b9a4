"""The Django app ``taskapp.django``."""

from __future__ import annotations

from django.apps import AppConfig


class TaskappConfig(AppConfig):
    """Configuration of the app; its label, and so the prefix of its tables, is ``taskapp``."""

    name = "taskapp.django"
    label = "taskapp"
    verbose_name = "taskapp"
