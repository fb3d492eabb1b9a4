"""Writes the two dashboards: ``python deploy/grafana/build.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from look import dashboard, variable
from panels import OVERVIEW, TASKS

DIRECTORY = Path(__file__).parent / "dashboards"

JOB = variable("job", "Broker", "label_values(taskapp_broker_up, job)")
QUEUE_CHOICE = variable("queue", "Queue", 'label_values(taskapp_queue_depth{job=~"$job"}, queue)')
TYPE_CHOICE = variable(
    "type", "Task type", 'label_values(taskapp_tasks_received_total{job=~"$job", queue=~"$queue"}, type)'
)


def dashboards() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and content of each file."""
    yield "overview.json", dashboard("taskapp-overview", "taskapp: overview", OVERVIEW, JOB)
    yield (
        "tasks-and-queues.json",
        dashboard("taskapp-tasks", "taskapp: task types and queues", TASKS, JOB, QUEUE_CHOICE, TYPE_CHOICE),
    )


def text(content: dict[str, Any]) -> str:
    """Return a dashboard as the text of its file."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for file_name, content in dashboards():
        (DIRECTORY / file_name).write_text(text(content))
