"""A process that submits: it reads orders, one JSON object a line, and answers with what came of each task.

It is a process of its own so that its clock can be wrong, it can be killed, and one harness can play
many rows, each with its own broker.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, TextIO

APP_VARIABLE = "FAULTS_APP"
ABSOLUTE_TIMES = ("eta", "expires")


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    tasks = import_module(os.environ[APP_VARIABLE]).app.tasks
    for module in ("tests.faults.fault_tasks", "tests.faults.newer_tasks"):
        import_module(module)
    with ThreadPoolExecutor(max_workers=8) as threads:
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            answer(tasks, json.loads(line), threads, answers)


def answer(tasks: Any, order: dict[str, Any], threads: ThreadPoolExecutor, answers: TextIO) -> None:
    """Carry out one order and write the list of what came of it."""
    options, begun_at = order["options"], time.monotonic()
    if order["at_once"]:
        records = list(threads.map(lambda n: attempt(tasks, order, options[n]), range(len(options))))
    else:
        records = []
        for position, given in enumerate(options):
            if order["per_second"]:
                wait_until(begun_at + position / order["per_second"])
            records.append(attempt(tasks, order, given))
    print(json.dumps(records), file=answers, flush=True)


def wait_until(moment: float) -> None:
    """Return at ``moment`` of the monotonic clock, at once if it is past."""
    time.sleep(max(0.0, moment - time.monotonic()))


def attempt(tasks: Any, order: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Submit one task, by ``delay`` where no option is given, and return its record."""
    task_type, sent_at = tasks[order["task"]], time.monotonic()
    options = {name: moment(value) if name in ABSOLUTE_TIMES else value for name, value in options.items()}
    error = None
    try:
        if options:
            task_id = task_type.apply_async(tuple(order["args"]), **options).id
        else:
            task_id = task_type.delay(*order["args"]).id
    except Exception as raised:  # noqa: BLE001 - whatever delay() raises is what is examined here
        error = raised
        task_id = getattr(raised, "task_id", None) or options.get("task_id", "")
    return {
        "id": task_id,
        "sent_at": sent_at,
        "answered_at": time.monotonic(),
        "countdown": options.get("countdown"),
        "error": type(error).__name__ if error else None,
        "message": str(error) if error else None,
    }


def moment(value: float | dict[str, float]) -> float | datetime:
    """Return ``{"at": Unix seconds}`` as a datetime; any other value is relative already."""
    return datetime.fromtimestamp(value["at"], UTC) if isinstance(value, dict) else value


if __name__ == "__main__":
    main()
