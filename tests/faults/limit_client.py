"""A process that submits tasks with limits until it is killed: ``python -m tests.faults.limit_client LOG PLAN``.

It writes each call to a file before it is made, and what came of it afterwards, so that it may be killed at any moment.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from taskapp.errors import DuplicateTask


@dataclass(frozen=True)
class Plan:
    """What a client submits."""

    name: str
    seconds: dict[str, float]
    """Name of a task type in ``limit_tasks`` to how long each of its tasks takes."""
    keys: list[str]
    per_second: float
    seed: int
    count: int = 1_000_000
    priorities: list[int] = field(default_factory=lambda: [0])

    @property
    def text(self) -> str:
        """The plan as an argument of the process."""
        return json.dumps(asdict(self))


class CallLog:
    """Calls, and what came of them: a line of JSON each, whole or not at all."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, **fields: object) -> None:
        os.write(self._descriptor, (json.dumps({**fields, "at": time.monotonic()}) + "\n").encode())


def main(log: str, plan: Plan) -> None:
    from taskapp.celery import app
    from tests.faults import limit_tasks

    app.finalize()
    calls, rng, begun_at = CallLog(log), random.Random(plan.seed), time.monotonic()
    for number in range(plan.count):
        time.sleep(max(0.0, begun_at + number / plan.per_second - time.monotonic()))
        name, key = rng.choice(list(plan.seconds)), rng.choice(plan.keys)
        call = f"{name}.{key}.{plan.name}-{number}"
        calls.write(call=call)
        try:
            answer = getattr(limit_tasks, name).apply_async(
                (key, call, plan.seconds[name]), task_id=call, priority=rng.choice(plan.priorities)
            )
        except DuplicateTask as refusal:
            calls.write(call=call, refused_for=refusal.existing[call])
        except Exception as error:  # noqa: BLE001 - the server is away, which is the fault
            calls.write(call=call, error=f"{type(error).__name__}: {error}")
        else:
            calls.write(call=call, answer=answer.id)


if __name__ == "__main__":
    Path(sys.argv[1]).touch()
    main(sys.argv[1], Plan(**json.loads(sys.argv[2])))
