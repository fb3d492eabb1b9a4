"""Errors of tracing."""

from __future__ import annotations

from taskapp.errors.extras import MissingExtra


class TracingUnavailable(MissingExtra):
    """Tracing is on, and a package it needs is missing."""

    def __init__(self, missing: str) -> None:
        super().__init__("TASKAPP_TRACING", missing, "tracing")
