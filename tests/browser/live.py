"""A live system for pages to show: nodes, a beat, schedules, thousands of tasks, letters nobody could read."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.support import Process, RedisServer, clean_environment

SCHEDULES = (
    ("nightly-report", "0 3 * * MON-FRI", "Europe/Berlin"), ("import/flights", "every 30s", "UTC"),
    ("mail/digest", "*/5 * * * *", "America/New_York"), ("mail/reminders", "every 10s", "UTC"),
    ("shop/cleanup", "every 1h", "UTC"), ("shop/rates", "every 20s", "UTC"), ("stock/count", "@daily", "Asia/Tokyo"),
)  # fmt: skip

ADD_SCHEDULES = """
from taskapp.celery import app
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.times import parse_when
with app.schedules() as store:
    for name, when, zone in {schedules!r}:
        store.add(Schedule(name, "taskapp.add", parse_when(when, zone), args=(1, 2), zone=zone))
    store.pause("shop/cleanup", "until the stock is counted")
"""

LOAD = """
import random, time
from taskapp.tasks import add
from tests.integration import shop
random.seed(7)
ends_at, sent = time.monotonic() + {seconds}, 0
for n in range(300):
    add.apply_async((n, 1), countdown=600 + n)
while True:
    count = random.choice((50, 150, 400))
    sent += count
    for n in range(count):
        queue = random.choice(("default", "default", "high", "low", "critical"))
        add.apply_async((n, 1), queue=queue, priority=random.choice((0, 0, 5, 9)))
    shop.unsteady.apply_async((9,), retries=2)
    if random.random() < 0.3:
        shop.unsteady.apply_async((1,))
    if time.monotonic() > ends_at and sent > 3_000:
        break
    time.sleep({pause_seconds})
"""

HOLD = """
import taskapp.celery
from taskapp.tasks import add
from tests.integration import shop
for _ in range({held}): shop.hold.delay({release!r})
for n in range(40): add.apply_async((n, 1), queue="low", priority=n % 10)
"""


def run(server: RedisServer, directory: Path, code: str, within_seconds: float = 60.0) -> None:
    """Run ``code`` as a web process would: the browser's driver keeps a loop in this one."""
    environment = clean_environment(
        TASKAPP_BROKER_URL=server.url, TASKAPP_DATA_DIR=str(directory), PYTHONPATH=str(Path.cwd())
    )
    process = Process([sys.executable, "-c", code], directory / "web.log", environment)
    assert process.wait(within_seconds) == 0, process.output()


def start_beat(server: RedisServer, directory: Path) -> Process:
    environment = clean_environment(
        TASKAPP_BROKER_URL=server.url, TASKAPP_DATA_DIR=str(directory / "beat"),
        PYTHONPATH=os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]),
    )  # fmt: skip
    return Process([sys.executable, "-m", "celery", "-A", "taskapp", "beat"], directory / "beat.log", environment)


def send_unreadable(server: RedisServer, count: int, task: str = "shop.pay") -> None:
    """Put messages into a queue that no node can read."""
    for number in range(count):
        headers = {"id": f"order-{number}", "task": task}
        properties = {"delivery_info": {"exchange": "", "routing_key": "low"}, "delivery_tag": "x"}
        message = {"body": "!!!", "content-type": "application/json", "headers": headers, "properties": properties}
        server.client.lpush("low", json.dumps(message))
