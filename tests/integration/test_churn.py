"""Nodes that are started, drained and killed, again and again: nothing that is exported or kept grows with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration import shop
from tests.integration.test_exporter import SHOP, Exporter
from tests.support import Process, RedisServer, eventually, leased_count, start_worker

RESTARTS = int(os.environ.get("TEST_RESTARTS", "24"))
FEW = 8
AT_ONCE = 4
LEASE_SECONDS = 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + RESTARTS * 10), pytest.mark.usefixtures("app")]

Sample = tuple[str, tuple[tuple[str, str], ...]]
Series = set[Sample]


@pytest.fixture
def exporter(tmp_path: Path, redis_server: RedisServer) -> Iterator[Exporter]:
    exporter = Exporter(tmp_path, redis_server.url)
    yield exporter
    exporter.close()


class Pods:
    """Nodes with names of their own, of which each runs some tasks before it goes."""

    def __init__(self, directory: Path, server: RedisServer, exporter: Exporter) -> None:
        self._directory, self._server, self._exporter = directory, server, exporter

    def live(self, number: int) -> Series:
        """Start a node, let it run tasks, and end it; return the series there were while it ran.

        Every second one is drained, the others are killed in the midst of a task.
        """
        name = f"pod-{number}"
        node = self.start(name)
        try:
            for result in [shop.greet.delay(name) for _ in range(3)]:
                assert result.get(timeout=60) == f"hello {name}"
            if number % 2:
                release = self._directory / f"release-{number}"
                shop.hold_softly.delay(str(release))
                eventually(lambda: leased_count(self._server), 60)
            seen = series(self._exporter)
            if number % 2:
                node.kill()
                release.touch()
        finally:
            node.close()
            node.log.unlink()
        return seen

    def start(self, name: str) -> Process:
        return start_worker(
            self._directory, self._server.url, name=name,
            TASKAPP_INCLUDE="tests.integration.shop", TASKAPP_LEASE_SECONDS=str(LEASE_SECONDS),
        )  # fmt: skip

    def finish(self) -> None:
        """Let one more node do what those that were killed left, and go."""
        node = self.start("last")
        eventually(lambda: self._exporter.nodes() == 1, 60)
        eventually(lambda: not self._exporter.value("taskapp_queue_depth"), 60)
        eventually(lambda: self._exporter.value("taskapp_messages_held") == 0, 60)
        node.close()
        eventually(lambda: self._exporter.nodes() == 0, 60)


def series(exporter: Exporter) -> Series:
    families = text_string_to_metric_families(exporter.page())
    return {(sample.name, tuple(sorted(sample.labels.items()))) for family in families for sample in family.samples}


def keys(server: RedisServer) -> dict[str, int]:
    """What is kept, but for results and what is counted, which is exported: how large each key is."""
    passing = ("celery-task-meta-", "taskapp:totals")
    names = [name for name in server.client.keys("*") if not name.startswith(passing) and not name.endswith(":wake")]
    return {name: size_of(server, name) for name in names}


def size_of(server: RedisServer, name: str) -> int:
    count = {"hash": "HLEN", "set": "SCARD", "zset": "ZCARD", "list": "LLEN", "stream": "XLEN"}
    kind = server.client.type(name)
    return int(server.client.execute_command(count[kind], name)) if kind in count else 1


def test_a_thousand_restarts_leave_as_many_series_and_keys_as_a_few(
    tmp_path: Path, redis_server: RedisServer, exporter: Exporter
) -> None:
    pods = Pods(tmp_path, redis_server, exporter)

    def rounds(numbers: range) -> Series:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            seen = set[Sample]().union(*threads.map(pods.live, numbers))
        pods.finish()
        return seen

    seen = rounds(range(FEW))
    exported, kept = series(exporter), keys(redis_server)

    assert rounds(range(FEW, FEW + RESTARTS)) <= seen | exported
    assert series(exporter) == exported
    assert keys(redis_server) == kept
    assert exporter.counted("completed", f"{SHOP}.greet") == 3 * (FEW + RESTARTS)
    assert exporter.counted("completed", f"{SHOP}.hold_softly") == (FEW + RESTARTS) // 2
