"""The app of the worker of Celery's integration suite."""

from __future__ import annotations

import json
import os

if os.environ["UPSTREAM_APP"] == "taskapp":
    from taskapp import Celery
else:
    from celery import Celery  # type: ignore[assignment]

app = Celery("celery.tests")
app.add_defaults(json.loads(os.environ["UPSTREAM_CONFIG"]))
app.conf.include = ["celery.contrib.testing.tasks", "t.integration.tasks"]


@app.on_after_finalize.connect
def register_classes(sender: Celery, **_: object) -> None:
    from t.integration.tasks import ClassBasedAutoRetryTask

    sender.register_task(ClassBasedAutoRetryTask)
