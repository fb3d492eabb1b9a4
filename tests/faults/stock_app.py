"""Celery as it comes, with the settings its documentation recommends, to compare with."""

from __future__ import annotations

import json
import os

from celery import Celery

from tests.faults.execution_log import SCHEDULE_VARIABLE

VISIBILITY_TIMEOUT_SECONDS = 30

app = Celery(
    "stock",
    broker=os.environ["FAULTS_STOCK_URL"],
    backend=os.environ["FAULTS_STOCK_URL"],
    include=["tests.faults.fault_tasks", "tests.faults.tick_tasks"],
)
app.conf.update(
    task_default_queue="default",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT_SECONDS},
    broker_connection_retry_on_startup=True,
    task_track_started=True,
    beat_schedule={
        name: {"task": "faults.tick", "schedule": seconds, "args": (0.0,)}
        for name, seconds in json.loads(os.environ.get(SCHEDULE_VARIABLE, "{}")).items()
    },
)
app.set_default()
