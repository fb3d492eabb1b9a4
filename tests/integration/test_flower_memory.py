"""Flower's own memory: it forgets old tasks instead of growing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from taskapp.monitor.flower import MAX_TASKS
from tests.integration.test_flower_tabs import WITH_LOGIN, ask
from tests.support import Process, RedisServer, clean_environment, eventually, start_flower

TASKS = 100_000
AT_ONCE = 2_000

SEND = """
import sys, uuid
from taskapp.celery import app
with app.connection_for_write() as connection, app.events.Dispatcher(connection, hostname="w1@host") as dispatcher:
    for line in sys.stdin:
        for number in range(int(line)):
            about = dict(name="shop.pay", args=repr([number, "x" * 200]), kwargs="{}", retries=0)
            dispatcher.send("task-received", uuid=str(uuid.uuid4()), **about)
        print("sent", flush=True)
"""
TABLE = (
    "tasks/datatable?draw=1&start=0&length=10&columns[0][data]=name&order[0][column]=0&order[0][dir]=asc&search[value]="
)


@pytest.fixture
def flower(tmp_path: Path, redis_server: RedisServer) -> Iterator[tuple[Process, str]]:
    process, address = start_flower(tmp_path, WITH_LOGIN, TASKAPP_BROKER_URL=redis_server.url)
    yield process, address
    process.close()


def events_read(address: str) -> int:
    counts = re.findall(r'^flower_events_total\{.*type="task-.*\} (\S+)$', ask(f"{address}/metrics").body, re.M)
    return int(sum(float(count) for count in counts))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_hundred_thousand_tasks_take_no_more_memory_than_the_first_ten_thousand(
    flower: tuple[Process, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    process, address = flower
    environment = clean_environment(TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path))
    sender = Sender(environment)
    eventually(lambda: redis_server.client.pubsub_numpat())
    used_mb = {}

    for number in range(AT_ONCE, TASKS + 1, AT_ONCE):
        sender.send(AT_ONCE)
        # No faster than it reads: what is sent meanwhile would wait in the server's memory.
        eventually(lambda wanted=number: events_read(address) >= wanted, 60, 0.1)
        used_mb[number] = psutil.Process(process.pid).memory_info().rss / 2**20
    sender.close()

    assert ask(f"{address}/{TABLE}").json["recordsTotal"] == MAX_TASKS
    assert used_mb[TASKS] - used_mb[2 * MAX_TASKS] < 25, used_mb
    assert ask(f"{address}/overview/data").status == 200


class Sender:
    """Sends the events of that many tasks, in a process of its own."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-c", SEND], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(self, count: int) -> None:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        print(count, file=self._popen.stdin, flush=True)
        assert self._popen.stdout.readline() == "sent\n"

    def close(self) -> None:
        self._popen.communicate(timeout=20)
