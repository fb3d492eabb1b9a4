"""Errors of signing tasks."""

from __future__ import annotations

from taskapp.errors import TaskappError


class SigningPackageMissing(TaskappError):
    """An app is set up to sign tasks, and the package for it is missing."""

    def __init__(self) -> None:
        super().__init__(
            "app.setup_security() needs the package cryptography; install it with pip install 'taskapp[auth]'"
        )
