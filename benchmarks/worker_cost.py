"""CPU per task of one worker that drains a full queue: taskapp beside stock Celery on the same Redis.

    python benchmarks/worker_cost.py [--tasks 5000] [--pool solo] [--rounds 3]

No-op task, acknowledged after the run, result stored. CPU is user + system time of the worker's
processes between the first and the last result, so a busy machine does not matter. ``--watched``:
both send task events, note STARTED and store extended results, as taskapp does by default; otherwise
neither does, as stock Celery by default.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import redis

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5_000)
    parser.add_argument("--pool", default="solo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--watched", action="store_true")
    parser.add_argument("--only", choices=["taskapp", "stock"])
    options = parser.parse_args()
    binary = shutil.which("redis-server")
    assert binary, "a redis-server on PATH is needed"
    with tempfile.TemporaryDirectory() as directory:
        port = 6300 + os.getpid() % 600
        argv = [binary, "--port", str(port), "--save", "", "--dir", directory]
        server = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        try:
            measure(options, f"redis://127.0.0.1:{port}/0", Path(directory))
        finally:
            server.terminate()
            server.wait()


def measure(options: argparse.Namespace, url: str, directory: Path) -> None:
    engines = [options.only] if options.only else ["stock", "taskapp"]
    figures: dict[str, list[float]] = {engine: [] for engine in engines}
    for number in range(options.rounds):
        for engine in engines:
            figures[engine].append(one_round(engine, options, url, directory))
            print(f"round {number + 1}: {engine:8} {figures[engine][-1]:7.0f} µs CPU a task", flush=True)
    for engine, values in figures.items():
        print(f"{engine:8} median {statistics.median(values):7.0f} µs")
    if len(engines) == 2:
        ratio = statistics.median(figures["stock"]) / statistics.median(figures["taskapp"])
        print(f"taskapp needs 1/{ratio:.1f} of it")


def one_round(engine: str, options: argparse.Namespace, url: str, directory: Path) -> float:
    client = redis.Redis.from_url(url)
    wait_for(lambda: answers(client))
    client.flushall()
    environment = {
        **os.environ, "TASKAPP_ENV_FILE": "", "TASKAPP_BROKER_URL": url, "TASKAPP_DATA_DIR": str(directory / "data"),
        "TASKAPP_CANARY_SECONDS": "0", "STOCK_URL": url, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }  # fmt: skip
    environment["STOCK_WATCHED"] = "1" if options.watched else ""
    app = {"stock": "stock_app", "taskapp": "taskapp.celery" if options.watched else "plain_app"}[engine]
    task = {"stock": "stock.noop", "taskapp": "taskapp.add"}[engine]
    fill = f"from {app} import app\nwith app.pool.acquire(): pass\n"
    fill += f"for n in range({options.tasks}): last = app.send_task({task!r}, (n, 1), queue='default')\nprint(last.id)"
    filled = subprocess.run([sys.executable, "-c", fill], env=environment, check=True, capture_output=True, text=True)
    last_key = "celery-task-meta-" + filled.stdout.split()[-1]
    argv = [
        sys.executable, "-m", "celery", "-A", app, "worker", "-P", options.pool, "-c", "1", "-l", "WARNING",
        "-Q", "default", "--without-mingle", "--without-gossip",
    ]  # fmt: skip
    worker = subprocess.Popen(argv, env=environment, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        ready_at = wait_for(lambda: next(client.scan_iter("celery-task-meta-*", count=1_000), None))
        begun = cpu_seconds(worker.pid)
        done_before = sum(1 for _ in client.scan_iter("celery-task-meta-*", count=10_000))
        wait_for(lambda: client.exists(last_key))
        used = cpu_seconds(worker.pid) - begun
        assert ready_at
        return used / (options.tasks - done_before) * 1e6
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def wait_for(condition: Callable[[], Any], within_seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + within_seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the worker did not get there"
        time.sleep(0.005)
    return value


def cpu_seconds(pid: int) -> float:
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


if __name__ == "__main__":
    main()
