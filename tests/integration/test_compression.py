"""Compressed messages and results: what becomes too large is refused, wherever it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis
from celery.result import AsyncResult
from kombu import compression

from taskapp.app.application import Celery
from taskapp.engine.dead_letters import DeadLetters
from taskapp.errors.tasks import UnreadableResult
from taskapp.transport.codec import pack_task, to_json
from tests.integration import rabbitmq
from tests.support import Process, RedisServer, eventually, start_worker

METHODS = sorted(compression.encoders())
BOMB = b'["' + b"a" * 40_000_000
HEADERS = {"id": "bomb", "task": "taskapp.add", "retries": 0, "root_id": "bomb", "parent_id": None}
MOST_MORE = 200 << 20
StartWorker = Callable[..., Process]


def peak_of(pid: int) -> int:
    """The most memory the process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def headers_of(method: str) -> dict[str, Any]:
    return {**HEADERS, "id": f"bomb-{method}", "compression": method}


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    return redis.Redis(port=redis_server.port)


@pytest.mark.parametrize("written", ["by taskapp", "by kombu"])
def test_a_message_that_becomes_too_large_is_buried_and_its_task_fails(
    written: str, client: redis.Redis, letters: DeadLetters, worker: StartWorker, app: Celery
) -> None:
    node = worker()

    for method in METHODS:
        packed, headers = compression.compress(BOMB, method)[0], headers_of(method)
        if written == "by taskapp":
            blob = pack_task((packed, "application/json", "utf-8"), headers, 0, None, None, "", "default")
        else:
            with kombu.Connection("memory://") as connection:
                body, encoding = connection.channel().encode_body(packed, "base64")
            properties = {"delivery_info": {"routing_key": "default"}, "delivery_tag": "t", "body_encoding": encoding}
            content = {"content-type": "application/json", "content-encoding": "utf-8"}
            blob = to_json({"body": body, "headers": headers, "properties": properties, **content})
        client.lpush("default", blob)

    found = eventually(lambda: found if len(found := letters.find()) == len(METHODS) else [], 60.0)
    node.close()

    assert {letter.reason for letter in found} == {"unreadable"}
    assert all("raise TASKAPP_MAX_UNPACKED_BYTES" in letter.error for letter in found)
    for method in METHODS:
        result: AsyncResult[Any] = app.AsyncResult(f"bomb-{method}")
        assert (result.state, "TASKAPP_MAX_UNPACKED_BYTES" in str(result.result)) == ("FAILURE", True)
    assert node.returncode == 0


def test_the_node_takes_no_more_memory_for_it(client: redis.Redis, letters: DeadLetters, worker: StartWorker) -> None:
    node = worker()
    before = peak_of(node.pid)
    packed = compression.compress(b"a" * 600_000_000, "gzip")[0]

    client.lpush("default", pack_task((packed, "application/json", "utf-8"), headers_of("gzip"), 0, None, None, "", ""))
    eventually(letters.find, 60.0)
    peak = peak_of(node.pid)

    assert peak - before < MOST_MORE


@pytest.mark.skipif(not rabbitmq.is_installed(), reason="rabbitmq-server is not installed")
def test_over_rabbitmq_it_is_rejected_and_the_node_goes_on(
    redis_server: RedisServer, rabbitmq_url: str, tmp_path: Path
) -> None:
    node = None
    try:
        node = start_worker(tmp_path, rabbitmq_url, TASKAPP_RESULT_URL=redis_server.url)
        with kombu.Connection(rabbitmq_url) as connection:
            producer = connection.Producer()
            for method in METHODS:
                packed = compression.compress(BOMB, method)[0]
                content = {"content_type": "application/json", "content_encoding": "utf-8"}
                producer.publish(packed, "default", headers=headers_of(method), **content)
            command = {"method": "shutdown", "arguments": {"a": "a" * 40_000_000}, "destination": None}
            exchange = kombu.Exchange("celery.pidbox", type="fanout", durable=False)
            producer.publish(command, exchange=exchange, compression="bzip2")

        eventually(lambda: node.output().count("TASKAPP_MAX_UNPACKED_BYTES") > len(METHODS), 60.0)

        assert node.returncode is None
    finally:
        if node is not None:
            node.close()


def test_a_command_that_becomes_too_large_is_dropped(client: redis.Redis, worker: StartWorker) -> None:
    node = worker()
    packed = compression.compress(BOMB, "gzip")[0]
    with kombu.Connection("memory://") as connection:
        body, encoding = connection.channel().encode_body(packed, "base64")
    properties = {
        "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
        "delivery_tag": "t",
        "body_encoding": encoding,
    }
    content = {"content-type": "application/json", "content-encoding": "utf-8"}
    command = to_json({"body": body, "headers": {"compression": "gzip"}, "properties": properties, **content})

    heard = client.publish("/0.celery.pidbox", command)

    assert heard == 1
    eventually(lambda: "unusable remote-control command" in node.output())
    assert node.returncode is None


@pytest.mark.parametrize("method", METHODS)
def test_a_result_that_becomes_too_large_is_not_read(method: str, client: redis.Redis, app: Celery) -> None:
    packed = compression.compress(b'{"status": "SUCCESS", "result": "' + BOMB, method)[0]
    client.set("celery-task-meta-huge", b"\0celery-compressed\0" + method.encode() + b"\0" + packed)

    with pytest.raises(UnreadableResult, match=r"celery-task-meta-huge.*raise TASKAPP_MAX_UNPACKED_BYTES"):
        app.AsyncResult("huge").get(timeout=20)


def test_compressed_tasks_and_results_work(worker: StartWorker, app: Celery) -> None:
    worker()

    sent = [app.send_task("taskapp.add", [1, number], compression=method) for number, method in enumerate(METHODS)]

    assert [result.get(timeout=20) for result in sent] == [1 + number for number in range(len(METHODS))]
