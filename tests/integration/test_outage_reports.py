"""The log of an idle node whose broker goes away for a while: one line when it goes, one when it is back."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.integration import rabbitmq
from tests.support import Process, RedisServer, eventually, start_worker

AWAY_SECONDS = 7.0
"""Several heartbeats, events and attempts to connect."""
BACK = re.compile(r"the broker is back after ([\d.]+) s")


def complaints(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(r"\S+ \S+ (WARNING|ERROR|CRITICAL) ", line)]


def judge(worker: Process, before: int) -> None:
    said = complaints(worker.output()[before:])
    assert len(said) == 2, "\n".join(said)
    assert "the broker is away: " in said[0]
    found = BACK.search(said[1])
    assert found
    assert float(found[1]) >= AWAY_SECONDS - 2


@pytest.mark.quick("own", "prefork")
@pytest.mark.parametrize("pool", ["own", "prefork", "threads", "solo", "gevent"])
def test_an_outage_of_redis_is_two_lines(redis_server: RedisServer, tmp_path: Path, pool: str) -> None:
    options = () if pool == "own" else ("-P", pool)
    worker = start_worker(tmp_path, redis_server.url, *options, TASKAPP_LEASE_SECONDS="6")
    try:
        before = len(worker.output())
        redis_server.kill()
        time.sleep(AWAY_SECONDS)
        redis_server.start()
        eventually(lambda: BACK.search(worker.output()), within_seconds=20)
        time.sleep(2)  # what is said later would be one line too many
        judge(worker, before)
    finally:
        worker.close()


@pytest.mark.slow
@pytest.mark.skipif(not rabbitmq.is_installed(), reason="rabbitmq-server is not installed")
def test_an_outage_of_rabbitmq_is_two_lines(tmp_path: Path) -> None:
    server = rabbitmq.RabbitMQ(tmp_path)
    worker = None
    try:
        worker = start_worker(tmp_path, server.url, "-P", "threads")
        before = len(worker.output())
        server.stop()
        time.sleep(AWAY_SECONDS)
        server.start()
        eventually(lambda: BACK.search(worker.output()), within_seconds=40)
        time.sleep(2)
        judge(worker, before)
    finally:
        if worker is not None:
            worker.close()
        server.close()
