"""A pytest plugin for Celery's integration suite: its app is of taskapp or of stock Celery, its worker a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery.contrib.pytest as theirs
import celery.contrib.testing.app as testing_app
import pytest
from celery.utils.nodenames import anon_nodename

if os.environ["UPSTREAM_APP"] == "taskapp":
    from taskapp import Celery

    testing_app.Celery = Celery

READY_WITHIN = 120.0


@pytest.fixture(scope="session")
def celery_session_worker(celery_session_app: Any, celery_config: dict[str, Any]) -> Iterator[None]:
    """A worker in a process of its own, with the app's configuration, under the name that their tests expect."""
    celery_session_app.loader.import_task_module("t.integration.tasks")
    configured = testing_app.DEFAULT_TEST_CONFIG | celery_config | {"accept_content": ["json"]}
    config = json.dumps(configured)
    log = Path(os.environ["UPSTREAM_REPORT"]).with_suffix(".worker.log")
    argv = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "suite_worker",
        "worker",
        "-n",
        anon_nodename(),
        "-l",
        "INFO",
        "-c",
        "1",
    ]
    argv += ["--without-mingle", "--without-gossip", *os.environ.get("UPSTREAM_WORKER_OPTIONS", "").split()]
    with log.open("wb") as output:
        worker = subprocess.Popen(argv, env={**os.environ, "UPSTREAM_CONFIG": config}, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + READY_WITHIN
        while b" ready." not in log.read_bytes():
            if worker.poll() is not None or time.monotonic() > deadline:
                pytest.exit(f"the worker does not start: {log.read_text()}", 1)
            time.sleep(0.05)
        yield
    finally:
        worker.terminate()
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            worker.kill()


# Their conftest imports it by this name.
theirs.celery_session_worker = celery_session_worker
