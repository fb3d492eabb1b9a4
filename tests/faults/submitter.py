"""A process that submits: it reads orders, one JSON object a line, and answers with what came of each task.

It is a process of its own so that its clock can be wrong, it can be killed, and one harness can play
many rows, each with its own broker.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, TextIO

from celery import chain, chord

APP_VARIABLE = "FAULTS_APP"
ABSOLUTE_TIMES = ("eta", "expires")


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    tasks = import_module(os.environ[APP_VARIABLE]).app.tasks
    for module in ("fault_tasks", "async_tasks", "newer_tasks", "ending_tasks"):
        import_module(f"tests.faults.{module}")
    with ThreadPoolExecutor(max_workers=8) as threads:
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            answer(tasks, json.loads(line), threads, answers)


def answer(tasks: Any, order: dict[str, Any], threads: ThreadPoolExecutor, answers: TextIO) -> None:
    """Carry out one order and write the list of what came of it."""
    if "revoke" in order:
        revoke(tasks, order)
        print("[]", file=answers, flush=True)
        return
    options, begun_at = order["options"], time.monotonic()
    if order["at_once"]:
        records = list(threads.map(lambda n: attempt(tasks, order, options[n]), range(len(options))))
    else:
        records = []
        for position, given in enumerate(options):
            if order["per_second"]:
                wait_until(begun_at + position / order["per_second"])
            if "workflows" in order:
                records.append(attempt_workflow(tasks, given))
            else:
                records.append(attempt(tasks, order, given))
    print(json.dumps(records), file=answers, flush=True)


def revoke(tasks: Any, order: dict[str, Any]) -> None:
    """Revoke one task after another, at a rate; a server that is away is the row's own doing."""
    begun_at, app = time.monotonic(), next(iter(tasks.values())).app
    for position, task_id in enumerate(order["revoke"]):
        wait_until(begun_at + position / order["per_second"])
        with suppress(Exception):
            app.control.revoke(task_id)


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
    return record(task_id, sent_at, error, countdown=options.get("countdown"))


def attempt_workflow(tasks: Any, workflow: dict[str, Any]) -> dict[str, Any]:
    """Submit one task, chain or chord and return its record."""
    built, errback = canvas(tasks, workflow)
    # Frozen before it is sent, so that the ids are known whatever comes of it.
    last, sent_at, error = built.freeze(), time.monotonic(), None
    try:
        built.apply_async()
    except Exception as raised:  # noqa: BLE001 - whatever it raises is what is examined here
        error = raised
    return record(last.id, sent_at, error, parts=ids_before(last), errback=errback)


def canvas(tasks: Any, workflow: dict[str, Any]) -> tuple[Any, str | None]:
    """Return the task, chain or chord that ``workflow`` describes, and the id of its errback."""
    if "task" in workflow:
        return signature(tasks, workflow), None
    if "chain" in workflow:
        return chain(*[signature(tasks, one) for one in workflow["chain"]]), None
    body, errback = signature(tasks, workflow["body"]), None
    if workflow["errback"]:
        errback = str(uuid.uuid4())
        body.link_error(signature(tasks, workflow["errback"]).set(task_id=errback))
    return chord([signature(tasks, one) for one in workflow["header"]], body), errback


def signature(tasks: Any, one: dict[str, Any]) -> Any:
    return tasks[one["task"]].s(*one["args"]).set(**one["options"])


def ids_before(last: Any) -> list[str]:
    """Return the ids of the tasks that go before ``last``, in their order."""
    if (parent := last.parent) is None:
        return []
    return [member.id for member in parent.results] if hasattr(parent, "results") else [*ids_before(parent), parent.id]


def record(task_id: str, sent_at: float, error: Exception | None, **more: Any) -> dict[str, Any]:
    return {
        "countdown": None,
        **more,
        "id": task_id,
        "sent_at": sent_at,
        "answered_at": time.monotonic(),
        "error": type(error).__name__ if error else None,
        "message": str(error) if error else None,
    }


def moment(value: float | dict[str, float]) -> float | datetime:
    """Return ``{"at": Unix seconds}`` as a datetime; any other value is relative already."""
    return datetime.fromtimestamp(value["at"], UTC) if isinstance(value, dict) else value


if __name__ == "__main__":
    main()
