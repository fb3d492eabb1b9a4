"""Errors of tracing."""

from __future__ import annotations

from taskapp.errors import TaskappError


class TracingUnavailable(TaskappError):
    """Traces, asked for where nothing can make them."""

    def __init__(self, missing: str) -> None:
        super().__init__(
            f"TASKAPP_TRACING is on and the package {missing!r} is missing; "
            "install OpenTelemetry with pip install 'taskapp[tracing]'"
        )
