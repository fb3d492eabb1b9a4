"""Errors of tracing."""

from __future__ import annotations

from taskapp.errors import TaskappError


class TracingUnavailable(TaskappError):
    """Tracing is on, and a package it needs is missing."""

    def __init__(self, missing: str) -> None:
        super().__init__(
            f"TASKAPP_TRACING is on, but the package {missing!r} is missing; "
            "install OpenTelemetry with pip install 'taskapp[tracing]'"
        )
