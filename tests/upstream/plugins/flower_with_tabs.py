"""A pytest plugin for Flower's unit tests: its apps are taskapp's, and taskapp's tabs are installed."""

from __future__ import annotations

import os

import celery

if os.environ["UPSTREAM_APP"] == "taskapp":
    from taskapp import Celery
    from taskapp.monitor.flower import configure

    celery.Celery = Celery


def pytest_configure() -> None:
    if os.environ["UPSTREAM_APP"] == "taskapp":
        configure()
