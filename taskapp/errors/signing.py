"""Errors of signing tasks."""

from __future__ import annotations

from taskapp.errors import TaskappError


class SigningPackageMissing(TaskappError):
    """An app is to sign where nothing can."""

    def __init__(self) -> None:
        super().__init__(
            "app.setup_security() needs the package cryptography; install it with pip install 'taskapp[auth]'"
        )
