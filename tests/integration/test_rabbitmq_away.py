"""A RabbitMQ that takes nothing for an alarm, stands still or is gone: every way to submit ends at its deadline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import rabbitmq
from tests.support import RedisServer, clean_environment

pytestmark = pytest.mark.skipif(not rabbitmq.is_installed(), reason="rabbitmq-server is not installed")

DEADLINE_SECONDS = 1.0
MUCH_LATER_SECONDS = 15.0
"""On a busy machine, where a client has to reconnect."""

CLIENT = """
import asyncio, json, sys, threading
from time import monotonic
from celery import chain, chord, group
from taskapp.celery import app
from taskapp.tasks import add
from tests.integration.follow_ups import total

def at_once(count):
    def submit():
        try:
            add.delay(1, 2)
        except Exception as error:
            errors.append(error)
    errors = []
    threads = [threading.Thread(target=submit) for _ in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    raise max(errors, key=repr)

WAYS = {
    "delay": lambda: add.delay(1, 2),
    "by name": lambda: app.send_task("taskapp.add", [1, 2]),
    "options": lambda: add.apply_async((1, 2), countdown=1, priority=3),
    "submit_many": lambda: add.submit_many([(1, 2), (3, 4)]),
    "aapply_async": lambda: asyncio.run(add.aapply_async((1, 2))),
    "asubmit_many": lambda: asyncio.run(add.asubmit_many([(1, 2)])),
    "chain": lambda: chain(add.s(1, 2), add.s(3)).delay(),
    "group": lambda: group(add.s(1, 2), add.s(3, 4)).delay(),
    "chord": lambda: chord([add.s(1, 2), add.s(3, 4)])(total.s()),
    "twenty at once": lambda: at_once(20),
}
print(add.delay(1, 2).id, flush=True)
for line in sys.stdin:
    began_at = monotonic()
    try:
        WAYS[line.strip()]()
        said = "queued", ""
    except Exception as error:
        said = type(error).__name__, str(error)
    print(json.dumps([*said, monotonic() - began_at]), flush=True)
"""
WAYS = (
    "delay", "by name", "options", "submit_many", "aapply_async", "asubmit_many", "chain", "group", "chord",
    "twenty at once",
)  # fmt: skip


class Client:
    """A process that submits."""

    def __init__(self, url: str, result_url: str, directory: Path) -> None:
        env = clean_environment(
            TASKAPP_BROKER_URL=url, TASKAPP_RESULT_URL=result_url, TASKAPP_DATA_DIR=str(directory),
            TASKAPP_SUBMIT_DEADLINE_SECONDS=str(DEADLINE_SECONDS), PYTHONPATH=os.pathsep.join([str(Path.cwd())]),
        )  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        assert self._from.readline()

    def submit(self, way: str) -> tuple[str, str, float]:
        """Return the name of the error or ``queued``, what it says, and how long it took."""
        self._to.write(f"{way}\n")
        self._to.flush()
        name, text, seconds = json.loads(self._from.readline())
        return name, text, seconds

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._to.close()
        self._from.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[rabbitmq.RabbitMQ]:
    server = rabbitmq.RabbitMQ(tmp_path)
    yield server
    server.close()


@pytest.fixture
def client(server: rabbitmq.RabbitMQ, redis_server: RedisServer, tmp_path: Path) -> Iterator[Client]:
    client = Client(server.url, redis_server.url, tmp_path)
    yield client
    client.close()


def test_every_way_to_submit_ends_at_its_deadline(server: rabbitmq.RabbitMQ, client: Client) -> None:
    server.alarm(on=True)
    for way in WAYS:
        name, text, seconds = client.submit(way)
        assert name in ("PublishOutcomeUnknown", "BrokerUnavailable", "SubmitInterrupted"), (way, name, text)
        assert "alarm" in text or "limit" in text.lower(), (way, text)
        assert seconds < DEADLINE_SECONDS + MUCH_LATER_SECONDS, (way, name, text)
    server.alarm(on=False)
    assert client.submit("delay")[0] == "queued"

    server.freeze()
    for way in ("delay", "aapply_async", "group"):
        name, text, seconds = client.submit(way)
        assert name in ("PublishOutcomeUnknown", "BrokerUnavailable"), (way, text)
        assert seconds < DEADLINE_SECONDS + MUCH_LATER_SECONDS, (way, name, text)
    server.thaw()
    assert client.submit("delay")[0] == "queued"


def test_a_broker_that_is_gone_is_tried_until_the_deadline(server: rabbitmq.RabbitMQ, client: Client) -> None:
    server.stop()
    for way in ("delay", "options", "submit_many", "aapply_async", "group"):
        name, text, seconds = client.submit(way)
        assert name in ("BrokerUnavailable", "SubmitInterrupted"), (way, text)
        assert "within 1 s" in text
        assert DEADLINE_SECONDS / 2 < seconds < DEADLINE_SECONDS + MUCH_LATER_SECONDS, (way, seconds)
    server.start()

    assert client.submit("delay")[0] == "queued"
