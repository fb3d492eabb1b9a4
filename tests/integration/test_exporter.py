from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.connection import Connection

from taskapp.app.application import Celery
from taskapp.engine.dead_letters import DeadLetters
from taskapp.queues import PRIORITIES
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.times import Interval
from taskapp.transport.codec import SENT_AT_HEADER
from tests.integration import shop
from tests.support import Node, Process, RedisServer, clean_environment, eventually, free_port, run_python

SHOP = "tests.integration.shop"
StartWorker = Callable[..., Process]


class Exporter(Node):
    """``taskapp exporter`` on a free port."""

    def __init__(self, directory: Path, broker_url: str, **env: str) -> None:
        variables = clean_environment(TASKAPP_BROKER_URL=broker_url, TASKAPP_DATA_DIR=str(directory / "data"), **env)
        variables["PYTHONPATH"] = str(Path.cwd())
        argv = [sys.executable, "-m", "taskapp", "exporter", "--port", "0"]
        # A log of its own: otherwise a second one would take the address of the first.
        super().__init__(argv, directory / f"exporter-{uuid.uuid4().hex}.log", variables, cwd=directory)
        self.url = eventually(lambda: re.search(r"metrics at (http://\S+)", self.output())).group(1)

    def page(self) -> str:
        with urllib.request.urlopen(self.url, timeout=10) as response:
            return response.read().decode()

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples of ``name`` that have ``labels``; ``None`` when there is none."""
        found = [
            sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def nodes(self, state: str = "running") -> float | None:
        return self.value("taskapp_nodes", state=state)

    def counted(self, what: str, task_type: str) -> float | None:
        return self.value(f"taskapp_tasks_{what}_total", type=task_type)


StartExporter = Callable[..., Exporter]


@pytest.fixture
def exporter(tmp_path: Path, redis_server: RedisServer) -> Iterator[StartExporter]:
    started: list[Exporter] = []

    def start(broker_url: str = redis_server.url, **env: str) -> Exporter:
        started.append(Exporter(tmp_path, broker_url, **env))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.mark.usefixtures("app")
def test_the_counts_are_those_of_the_tasks_that_ran(
    worker: StartWorker, exporter: StartExporter, tmp_path: Path
) -> None:
    from taskapp.tasks import add

    worker(TASKAPP_INCLUDE=SHOP)
    serving = exporter()

    for number in range(50):
        add.delay(number, 1)
    for _ in range(3):
        shop.hopeless.apply_async((str(tmp_path / "ran"),), queue="low")
    for _ in range(2):
        shop.unsteady.apply_async((1,), queue="high")
    eventually(lambda: serving.value("taskapp_tasks_completed_total") == 52, within_seconds=40)
    eventually(lambda: serving.value("taskapp_tasks_failed_total") == 3)

    counted = {
        kind: [
            serving.value(f"taskapp_tasks_{kind}_total", type=task_type)
            for task_type in ("taskapp.add", f"{SHOP}.hopeless", f"{SHOP}.unsteady")
        ]
        for kind in ("received", "completed", "failed", "retried")
    }
    assert counted == {"received": [50, 3, 4], "completed": [50, 0, 2], "failed": [0, 3, 0], "retried": [0, 0, 2]}
    assert serving.value("taskapp_tasks_failed_total", type=f"{SHOP}.hopeless", queue="low") == 3
    assert serving.value("taskapp_task_run_seconds_count", type="taskapp.add") == 50
    assert serving.value("taskapp_task_queue_wait_seconds_count", queue="default") == 50
    assert serving.value("taskapp_task_queue_wait_seconds_count", queue="high") == 4
    assert 0 < serving.value("taskapp_task_queue_wait_seconds_sum", queue="default") < 50 * 10


@pytest.mark.usefixtures("app")
def test_a_task_that_is_not_due_does_not_wait(worker: StartWorker, exporter: StartExporter) -> None:
    from taskapp.tasks import add

    worker(TASKAPP_INCLUDE=SHOP)
    serving = exporter()

    for _ in range(3):
        add.apply_async((1, 1), countdown=4)
    eventually(lambda: serving.value("taskapp_tasks_completed_total") == 3, within_seconds=40)

    assert serving.value("taskapp_task_queue_wait_seconds_count", queue="default") == 3
    assert serving.value("taskapp_task_queue_wait_seconds_sum", queue="default") < 3 * 4


@pytest.mark.usefixtures("app")
def test_a_task_that_cannot_run_does_not_wait(
    worker: StartWorker, exporter: StartExporter, redis_server: RedisServer
) -> None:
    worker(name="w1")
    serving = exporter()
    long_ago = {SENT_AT_HEADER: time.time() - 1_200}

    # Nobody has its type for a while.
    shop.greet.apply_async(("parked",), queue="high", headers=long_ago)
    eventually(lambda: serving.value("taskapp_queue_parked", queue="high") == 1)
    worker(name="w2", TASKAPP_INCLUDE=SHOP)
    assert waited_seconds(serving, "high", 1) < 600

    # It was a dead letter.
    shop.charge.apply_async((-5,), queue="low", headers=long_ago)
    first_seconds = waited_seconds(serving, "low", 1)
    assert first_seconds > 1_100
    letters = DeadLetters(Link(lambda: Connection(port=redis_server.port, protocol=2)), "")
    [letter] = eventually(letters.find)
    assert letters.replay("low", letter.number)
    assert waited_seconds(serving, "low", 2) - first_seconds < 600

    # Its rate is limited.
    sent_at = time.time()
    results = [shop.stamp.delay() for _ in range(3 * shop.STAMPS_A_SECOND)]
    all_seconds = sum(result.get(timeout=40)[2] - sent_at for result in results)
    assert waited_seconds(serving, "default", len(results)) < all_seconds / 2


def waited_seconds(serving: Exporter, queue: str, tasks: int) -> float:
    """Return how long the tasks of a queue waited in total, once that many were counted."""
    eventually(lambda: serving.value("taskapp_task_queue_wait_seconds_count", queue=queue) == tasks, within_seconds=40)
    return serving.value("taskapp_task_queue_wait_seconds_sum", queue=queue) or 0.0


def test_a_publisher_in_another_time_zone_gives_the_same_wait(worker: StartWorker, exporter: StartExporter) -> None:
    worker()
    serving = exporter(TZ="America/New_York")

    subprocess.run(
        [sys.executable, "-c", "from taskapp.tasks import add; add.delay(1, 2)"],
        env={**os.environ, "TZ": "Asia/Tokyo", "PYTHONPATH": str(Path.cwd())}, check=True, timeout=60,
    )  # fmt: skip
    eventually(lambda: serving.value("taskapp_task_queue_wait_seconds_count", queue="default"))

    assert 0 < serving.value("taskapp_task_queue_wait_seconds_sum", queue="default") < 60


def test_depths_are_by_queue_and_priority_of_this_environment(
    redis_server: RedisServer, exporter: StartExporter
) -> None:
    serving = exporter(TASKAPP_KEY_PREFIX="staging.", TASKAPP_QUEUES="default,mails")
    redis_server.client.lpush(Keys("staging.").ready("mails", 9), "1", "2", "3")
    redis_server.client.lpush(Keys("staging.").kombu("default"), "pushed by a stock client")
    redis_server.client.lpush(Keys().ready("default", 0), "of another environment")

    depths = re.findall(r'^taskapp_queue_depth\{priority="(\d)",queue="(\w+)"\} (\d+)', serving.page(), re.MULTILINE)

    assert len(depths) == 2 * len(PRIORITIES)
    assert [depth for depth in depths if depth[2] != "0"] == [("0", "default", "1"), ("9", "mails", "3")]


def test_schedules_are_late_until_a_beat_leads(
    redis_server: RedisServer, exporter: StartExporter, app: Celery, tmp_path: Path
) -> None:
    serving = exporter()
    assert serving.value("taskapp_schedules", state="active") == 0
    assert serving.value("taskapp_beat_last_tick_timestamp_seconds") == 0
    with app.schedules() as schedules:
        schedules.add(Schedule("often", "taskapp.add", Interval(0.5), args=(1, 2)))
        schedules.add(Schedule("never", "taskapp.add", Interval(0.5), args=(1, 2)))
        schedules.pause("never")
    eventually(lambda: serving.value("taskapp_beat_lateness_seconds") > 2)
    variables = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_CANARY_SECONDS="0", TASKAPP_DATA_DIR=str(tmp_path),
        PYTHONPATH=str(Path.cwd()),
    )  # fmt: skip
    beat = Node([sys.executable, "-m", "celery", "-A", "taskapp", "beat"], tmp_path / "log", variables, tmp_path)
    try:
        eventually(lambda: serving.value("taskapp_beat_lateness_seconds") < 0.5)
        assert abs(serving.value("taskapp_beat_last_tick_timestamp_seconds") - time.time()) < 20
        assert serving.value("taskapp_schedules", state="active") == 1
        assert serving.value("taskapp_schedules", state="paused") == 1
    finally:
        beat.close()


@pytest.mark.usefixtures("app")
def test_a_broker_that_dies_and_comes_back_is_reported_and_counted_on(
    worker: StartWorker, exporter: StartExporter, redis_server: RedisServer
) -> None:
    from taskapp.tasks import add

    worker()
    serving = exporter()
    add.delay(1, 1).get(timeout=20)
    assert serving.counted("completed", "taskapp.add") == 1

    redis_server.kill()
    eventually(lambda: serving.value("taskapp_broker_up") == 0)
    assert serving.value("taskapp_queue_depth") is None
    assert serving.counted("completed", "taskapp.add") is None

    redis_server.start()
    eventually(lambda: serving.value("taskapp_broker_up") == 1)
    assert serving.value("taskapp_queue_depth") == 0
    add.delay(1, 1)
    eventually(lambda: serving.counted("completed", "taskapp.add") == 2, within_seconds=60)
    assert serving.output().count("cannot read the broker") == 1


@pytest.mark.usefixtures("app")
def test_what_happens_while_no_exporter_is_there_is_counted_and_two_agree(
    worker: StartWorker, exporter: StartExporter
) -> None:
    from taskapp.tasks import add

    worker()
    first, second = exporter(), exporter()
    add.delay(1, 1).get(timeout=20)
    second.kill()
    for result in [add.delay(1, 1) for _ in range(200)]:
        result.get(timeout=20)
    third = exporter()

    for name in ("taskapp_tasks_completed_total", "taskapp_task_run_seconds_count", "taskapp_tasks_received_total"):
        assert first.value(name, type="taskapp.add") == third.value(name, type="taskapp.add") == 201
    assert first.value("taskapp_task_queue_wait_seconds_sum") == third.value("taskapp_task_queue_wait_seconds_sum")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
@pytest.mark.usefixtures("app")
def test_tasks_are_counted_on_every_pool_also_when_acknowledged_early(
    worker: StartWorker, exporter: StartExporter, pool: str
) -> None:
    worker("-P", pool, "-c", "2", TASKAPP_INCLUDE=SHOP)
    serving = exporter()

    for number in range(5):
        shop.early.delay(number)
    shop.early.delay(-1)
    shop.unsteady.delay(1)

    wanted = {"completed early": 5, "failed early": 1, "retried unsteady": 1, "completed unsteady": 1}

    def counted() -> dict[str, float | None]:
        parts = [key.split() for key in wanted]
        return {f"{what} {name}": serving.counted(what, f"{SHOP}.{name}") for what, name in parts}

    eventually(lambda: counted() == wanted, 30)
    assert serving.value("taskapp_task_run_seconds_count", type=f"{SHOP}.early") == 5
    assert serving.value("taskapp_slots") == 2


def test_a_frozen_broker_is_down_within_the_time_of_a_scrape(
    exporter: StartExporter, redis_server: RedisServer
) -> None:
    serving = exporter()
    eventually(lambda: serving.value("taskapp_broker_up") == 1)

    redis_server.freeze()
    assert serving.value("taskapp_broker_up") == 0
    redis_server.thaw()

    eventually(lambda: serving.value("taskapp_broker_up") == 1)


@pytest.mark.usefixtures("app")
def test_nodes_are_counted_that_come_go_and_die_and_none_leaves_a_series(
    worker: StartWorker, exporter: StartExporter
) -> None:
    serving = exporter()
    first = worker("-c", "1", "-Q", "low", name="w1", TASKAPP_LEASE_SECONDS="3")
    eventually(lambda: serving.nodes() == 1)
    assert serving.value("taskapp_queue_nodes", queue="low") == 1
    assert serving.value("taskapp_queue_nodes", queue="high") == 0
    before = len(serving.page().splitlines())

    first.kill()
    eventually(lambda: serving.nodes("lost") == 1)
    second = worker("-c", "1", name="w2", TASKAPP_LEASE_SECONDS="3")
    eventually(lambda: (serving.nodes(), serving.nodes("lost")) == (1, 0))
    assert serving.value("taskapp_leases_lost_total") == 1
    worker("-c", "1", name="w3", TASKAPP_LEASE_SECONDS="3")
    eventually(lambda: serving.nodes() == 2)
    second.terminate()
    eventually(lambda: serving.nodes() == 1)

    assert not re.search("w[123]@", serving.page())
    assert len(serving.page().splitlines()) == before


def test_without_a_broker_it_answers_and_stops_at_once(tmp_path: Path) -> None:
    serving = Exporter(tmp_path, f"redis://127.0.0.1:{free_port()}/0")
    try:
        assert serving.value("taskapp_broker_up") == 0
        assert serving.nodes() is None
        assert serving.value("taskapp_queue_depth") is None
        assert serving.terminate() == 0
        assert "Traceback" not in serving.output()
    finally:
        serving.close()


def test_a_port_in_use_is_said_in_one_sentence(tmp_path: Path, redis_server: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        environment = clean_environment(TASKAPP_BROKER_URL=redis_server.url, PYTHONPATH=str(Path.cwd()))
        done = run_python("-m", "taskapp", "exporter", "--port", port, env=environment, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr == textwrap.dedent(f"""\
        Error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port or --address
        """)


def test_it_starts_no_server_of_its_own(tmp_path: Path) -> None:
    serving = Exporter(tmp_path, "")
    try:
        assert serving.value("taskapp_broker_up") == 0
        assert "no Redis" in serving.output()
        assert not (tmp_path / "data").exists()
    finally:
        serving.close()


def test_what_waits_for_the_history_is_told_with_its_age(redis_server: RedisServer, exporter: StartExporter) -> None:
    serving = exporter()

    def told() -> list[float | None]:
        return [serving.value(f"taskapp_history_{name}") for name in ("waiting", "dropped_total", "aside_total")]

    assert told() == [0, 0, 0]
    assert serving.value("taskapp_history_oldest_seconds") == 0
    came_at_ms = int(redis_server.client.time()[0] - 90) * 1_000
    for number in range(3):
        redis_server.client.xadd("taskapp:finished", {"r": "x" * 100}, f"{came_at_ms + number}-0")
    redis_server.client.hset("taskapp:counts", mapping={"finished_dropped": 4, "finished_aside": 1})

    assert told() == [3, 4, 1]
    assert 90 <= serving.value("taskapp_history_oldest_seconds") <= 110

    redis_server.client.delete("taskapp:finished")
    redis_server.client.set("taskapp:finished", "somebody's own")

    assert told() == [None, None, None]
    assert serving.value("taskapp_broker_up") == 1
