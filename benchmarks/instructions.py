"""How many instructions a node executes per task, counted by valgrind: two checkouts compare on a busy machine, too.

    python -m benchmarks.instructions CHECKOUT CHECKOUT [--tasks 12000] [--kind async|def]

CPU time of the same code differs by several percent from run to run while other programs use the cores; the number of
instructions differs by less than one. It leaves out the kernel and what caches do, so it shows whether a change
costs something, not how much time. Each checkout has its own ``.venv``. One node drains a short queue and
another one a long queue: the difference leaves out start and shutdown.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.servers import RedisStore

FEW = 500
"""Tasks of the short queue."""
DRAIN_SECONDS, END_SECONDS, LOOK_SECONDS = 300.0, 60.0, 0.2
DEFINITIONS = {"async": "async def noop():", "def": "def noop():"}
TASKS = """
from celery import shared_task

@shared_task(name="instructions.noop")
{definition}
    return None
"""
SUBMIT = "import taskapp.celery, counted_tasks; counted_tasks.noop.submit_many([()] * {count})"
COUNTED = re.compile(r"I\s+refs:\s+([\d,]+)")


def count(checkout: Path, store: RedisStore, kind: str, tasks: int) -> int:
    """Return the instructions of a node of ``checkout`` from its start to its end, with ``tasks`` tasks in between."""
    store.empty()
    with tempfile.TemporaryDirectory(prefix="taskapp-instructions-") as name:
        folder, python = Path(name), str(checkout / ".venv/bin/python")
        (folder / "counted_tasks.py").write_text(TASKS.format(definition=DEFINITIONS[kind]))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("TASKAPP_", "CELERY_"))}
        environment = {
            **kept, "TASKAPP_ENV_FILE": "", "TASKAPP_BROKER_URL": store.url, "TASKAPP_INCLUDE": "counted_tasks",
            "TASKAPP_DATA_DIR": name, "PYTHONPATH": name, "PYTHONHASHSEED": "0",
        }  # fmt: skip
        subprocess.run([python, "-c", SUBMIT.format(count=tasks)], env=environment, cwd=folder, check=True)
        valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={folder}/counts"]
        node = [python, "-m", "celery", "-A", "taskapp", "worker", "-l", "WARNING", "-c", "4"]
        with (folder / "node.log").open("w+") as log:
            process = subprocess.Popen([*valgrind, *node], env=environment, cwd=folder, stdout=log, stderr=log)
            try:
                await_completed(process, store.client, tasks)
                process.send_signal(signal.SIGTERM)
                process.wait(END_SECONDS)
            finally:
                process.kill()
                process.wait()
            log.seek(0)
            text = log.read()
    found = COUNTED.search(text)
    if found is None:
        sys.exit(f"the node of {checkout} did not end in order:\n{text[-2_000:]}")
    return int(found[1].replace(",", ""))


def await_completed(process: subprocess.Popen[bytes], client: Any, tasks: int) -> None:
    """Wait until ``tasks`` tasks are completed."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        totals = client.hgetall("taskapp:totals").items()
        if sum(int(number) for name, number in totals if name.startswith(b"completed")) >= tasks:
            return
        time.sleep(LOOK_SECONDS)
    sys.exit(f"{tasks:,} tasks were not completed within {DRAIN_SECONDS:.0f} s")


def main() -> None:
    """Count, and print the ratio to the first checkout."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkouts", nargs="+", type=Path, help="folders, each with its .venv")
    parser.add_argument("--tasks", type=int, default=12_000)
    parser.add_argument("--kind", choices=sorted(DEFINITIONS), default="async")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        parser.error("valgrind is missing: apt-get install valgrind")
    first = 0.0
    with tempfile.TemporaryDirectory(prefix="taskapp-instructions-") as name:
        store = RedisStore(Path(name))
        try:
            store.await_ready()
            for checkout in options.checkouts:
                few = count(checkout.absolute(), store, options.kind, FEW)
                each = (count(checkout.absolute(), store, options.kind, FEW + options.tasks) - few) / options.tasks
                first = first or each
                print(f"{checkout}: {each:,.0f} instructions per task, ratio {each / first:.3f}", flush=True)
        finally:
            store.close()


if __name__ == "__main__":
    main()
