"""Probes of real workers and beats, in what can happen to them."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from taskapp.queues import TASK_ROUTES, queue_for
from taskapp.redis.keys import Keys
from tests.integration import shop
from tests.support import Node, Process, RedisServer, clean_environment, eventually, leased_count

pytestmark = pytest.mark.usefixtures("app")
SHOP = "tests.integration.shop"
StartWorker = Callable[..., Process]
PATIENCE = "4"
"""Seconds; a node says once a second that its loop turns, and a busy machine may be late with that."""
LONGER_SECONDS = 6


def on(pool: str) -> tuple[str, ...]:
    return () if pool == "default" else ("-P", pool)


class Probe:
    """``taskapp health`` next to one node."""

    def __init__(self, node: Process) -> None:
        self.env = node.env

    def __call__(self, question: str, *options: str) -> str:
        """What is wrong; empty when all is well."""
        done = subprocess.run(
            [sys.executable, "-m", "taskapp", "health", question, "--patience", PATIENCE, *options],
            env=self.env, capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        assert done.returncode == (1 if done.stderr else 0), done
        return done.stderr.partition(": ")[2].strip()

    @property
    def live(self) -> bool:
        return self("live") == ""

    @property
    def ready(self) -> bool:
        return self("ready") == ""


def stays_live(probe: Probe) -> None:
    deadline = time.monotonic() + LONGER_SECONDS
    while time.monotonic() < deadline:
        assert probe("live") == ""
        time.sleep(0.2)


def test_a_node_that_imports_its_task_types_for_long_is_live_and_not_ready(worker: StartWorker, tmp_path: Path) -> None:
    imports, goes_on = tmp_path / "imports", tmp_path / "goes_on"
    (tmp_path / "slow_types.py").write_text(
        f"import pathlib, time\npathlib.Path({str(imports)!r}).touch()\n"
        f"while not pathlib.Path({str(goes_on)!r}).exists(): time.sleep(0.05)\n"
    )
    node = worker(wait=False, TASKAPP_INCLUDE="slow_types")
    probe = Probe(node)
    eventually(imports.exists)

    assert probe("live") == ""
    assert "it is starting" in probe("ready")

    goes_on.touch()
    eventually(lambda: probe.ready)
    assert node.output().count("probes will report") == 0


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["default", "prefork", "threads", "solo", "gevent"])
def test_a_long_task_leaves_a_node_live_on_every_pool(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path, pool: str
) -> None:
    gate = tmp_path / "gate"
    probe = Probe(worker(*on(pool), TASKAPP_INCLUDE=SHOP))
    eventually(lambda: probe.ready)
    for task in (shop.hold, shop.hold_softly if pool == "default" else shop.hold):
        task.delay(str(gate))
    eventually(lambda: leased_count(redis_server) >= 1)

    stays_live(probe)
    assert probe.ready
    gate.touch()


def test_a_stopped_worker_is_not_live_until_it_goes_on(worker: StartWorker) -> None:
    node = worker("-P", "threads")
    probe = Probe(node)
    os.kill(node.pid, signal.SIGSTOP)

    eventually(lambda: "it has not reported for" in probe("live"))
    os.kill(node.pid, signal.SIGCONT)
    eventually(lambda: probe.ready)


@pytest.mark.slow
def test_a_loop_that_no_longer_turns_is_not_live(worker: StartWorker, tmp_path: Path) -> None:
    (tmp_path / "wedge.py").write_text(
        "import threading\nfrom celery.signals import worker_ready\n"
        "@worker_ready.connect(weak=False)\n"
        "def wedge(sender, **_): sender.hub.call_later(1, threading.Event().wait)\n"
    )
    node = worker("-P", "threads", TASKAPP_INCLUDE="wedge")
    probe = Probe(node)

    eventually(lambda: "its loop has not turned for" in probe("live"))
    assert "its loop has not turned for" in probe("ready")


def test_a_coroutine_that_holds_the_loop_makes_its_node_neither_live_nor_ready(worker: StartWorker) -> None:
    probe = Probe(worker(TASKAPP_INCLUDE=SHOP))
    eventually(lambda: probe.ready)
    held = shop.hold_up.delay(6)

    eventually(lambda: "its loop has not turned for" in probe("live"))
    assert held.get(timeout=20) is None
    eventually(lambda: probe.ready)


@pytest.mark.slow
def test_a_node_whose_children_do_not_come_back_is_not_live(worker: StartWorker, tmp_path: Path) -> None:
    (tmp_path / "barren.py").write_text(
        "from celery.signals import worker_ready\n"
        "@worker_ready.connect(weak=False)\n"
        "def bar(sender, **_):\n"
        "    pool = sender.controller.pool._pool\n"
        "    pool.maintain_pool = pool._maintain_pool = lambda: None\n"
    )
    node = worker("-P", "prefork", TASKAPP_INCLUDE="barren")
    probe = Probe(node)
    eventually(lambda: probe.ready)
    for child in psutil.Process(node.pid).children():
        child.kill()

    eventually(lambda: "none of its child processes is alive" in probe("ready"))
    eventually(lambda: "none of its child processes is alive, for" in probe("live"))


@pytest.mark.slow
def test_children_that_were_killed_and_came_back_change_nothing(worker: StartWorker) -> None:
    node = worker("-P", "prefork", TASKAPP_INCLUDE=SHOP)
    probe = Probe(node)
    eventually(lambda: probe.ready)
    for child in psutil.Process(node.pid).children():
        child.kill()

    stays_live(probe)
    assert shop.greet.delay("you").get(timeout=20) == "hello you"


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["default", "prefork", "solo"])
def test_without_redis_a_node_is_live_and_not_ready(worker: StartWorker, redis_server: RedisServer, pool: str) -> None:
    probe = Probe(worker(*on(pool)))
    eventually(lambda: probe.ready)

    redis_server.stop()
    eventually(lambda: "it has not reached its broker for" in probe("ready"))
    stays_live(probe)
    redis_server.start()
    eventually(lambda: probe.ready)


@pytest.mark.slow
def test_a_node_that_starts_without_redis_is_live_and_gets_ready_later(
    worker: StartWorker, redis_server: RedisServer
) -> None:
    redis_server.stop()
    probe = Probe(worker("-P", "threads", wait=False))
    eventually(lambda: probe("ready").endswith("it is starting or waiting for its broker"))

    stays_live(probe)
    redis_server.start()
    eventually(lambda: probe.ready)


def test_two_nodes_in_one_directory_are_told_apart_and_one_that_drains_is_live(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    leaving = worker("-P", "threads", TASKAPP_INCLUDE=SHOP)
    probe = Probe(leaving)
    shop.hold.delay(str(gate))
    eventually(lambda: leased_count(redis_server) == 1)
    worker("-P", "threads", name="w2")

    leaving._popen.terminate()
    eventually(lambda: probe("ready", "--node", "w1").endswith("it is draining"))
    eventually(lambda: probe("ready", "--node", "w2") == "")
    assert probe("live", "--node", "w1") == ""
    gate.touch()
    leaving.wait()
    assert "no node named 'w1'" in probe("live", "--node", "w1") or "runs here" in probe("live", "--node", "w1")
    assert probe("live") == ""


@pytest.mark.slow
def test_beat_is_live_while_its_loop_turns_and_ready_while_redis_takes_its_tasks(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    environment = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path / "data"), TASKAPP_CANARY_SECONDS="1",
        TASKAPP_SUBMIT_DEADLINE_SECONDS="1", PYTHONPATH=str(Path.cwd()),
    )  # fmt: skip
    redis_server.stop()
    beat = Node([sys.executable, "-m", "celery", "-A", "taskapp", "beat"], tmp_path / "beat.log", environment, tmp_path)
    probe = Probe(beat)
    try:
        eventually(lambda: probe("ready").endswith("it is starting or waiting for its broker"))
        stays_live(probe)
        redis_server.start()
        eventually(lambda: redis_server.client.llen(Keys().ready(queue_for("taskapp.canary", TASK_ROUTES))) > 0)
        eventually(lambda: probe.ready)
        redis_server.stop()
        eventually(lambda: "it has not reached its broker for" in probe("ready"))
        stays_live(probe)
        redis_server.start()
        eventually(lambda: probe.ready)
        os.kill(beat.pid, signal.SIGSTOP)
        eventually(lambda: "it has not reported" in probe("live"))
        os.kill(beat.pid, signal.SIGCONT)
        eventually(lambda: probe.live)
        assert probe("live", "--node", "celerybeat") == ""
    finally:
        beat.close()


def test_how_long_a_probe_takes(worker: StartWorker, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, and held only to a bound that no busy machine breaks: Celery alone takes longer to import."""
    probe = Probe(worker("-P", "solo"))
    eventually(lambda: probe.live)

    def median_ms(*arguments: str) -> float:
        took = []
        for _ in range(15):
            began_at = time.perf_counter()
            subprocess.run([sys.executable, *arguments], env=probe.env, check=True, stdout=subprocess.DEVNULL)
            took.append((time.perf_counter() - began_at) * 1_000)
        return statistics.median(took)

    bare, whole = median_ms("-c", "pass"), median_ms("-m", "taskapp", "health", "live")

    with capsys.disabled():
        sys.stdout.write(f"\ntaskapp health live: {whole:.0f} ms, of it the bare interpreter {bare:.0f} ms\n")
    assert whole < 500
