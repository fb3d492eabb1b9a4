"""Who watches may be away: nothing that happens meanwhile is missed, and no task notices."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration import shop
from tests.integration.test_exporter import Exporter
from tests.support import Process, RedisServer, eventually, start_flower

SHOP = "tests.integration.shop"
AWAY_SECONDS = float(os.environ.get("TEST_AWAY_SECONDS", "10"))
"""For how long nobody watches."""
PAUSE_SECONDS = 0.005

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Load:
    """Submits tasks until it is told to stop: most succeed, some fail."""

    def __init__(self) -> None:
        self.good = self.bad = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over.wait(PAUSE_SECONDS):
            shop.greet.delay("x")
            self.good += 1
            if self.good % 20 == 0:
                shop.fragile.delay()
                self.bad += 1

    @contextmanager
    def going_on(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            self._thread.join()


def done_in_the_last_hour(address: str) -> int:
    """What Flower's Overview says."""
    with urllib.request.urlopen(f"{address}/overview/data", timeout=10) as answer:
        blocks = json.load(answer)["blocks"]
    cards = next(block for block in blocks if block["kind"] == "cards")["cards"]
    return int(next(card["value"] for card in cards if card["label"] == "done, 1 h"))


@pytest.mark.usefixtures("app")
def test_an_exporter_and_flower_that_are_killed_under_load_lose_no_count_and_no_task(
    worker: Callable[..., Process], redis_server: RedisServer, tmp_path: Path
) -> None:
    worker(TASKAPP_INCLUDE=SHOP)
    (tmp_path / "a").mkdir()
    watchers: list[Process] = [Exporter(tmp_path / "a", redis_server.url)]
    watchers.append(start_flower(tmp_path / "a", TASKAPP_BROKER_URL=redis_server.url)[0])
    load = Load()
    try:
        with load.going_on():
            eventually(lambda: load.good > 50)
            for watcher in watchers:
                watcher.kill()
            time.sleep(AWAY_SECONDS)  # the outage itself
            (tmp_path / "b").mkdir()
            exporter = Exporter(tmp_path / "b", redis_server.url)
            flower, address = start_flower(tmp_path / "b", TASKAPP_BROKER_URL=redis_server.url)
            watchers += [exporter, flower]
        eventually(lambda: exporter.counted("completed", f"{SHOP}.greet") == load.good, within_seconds=60)
        eventually(lambda: exporter.counted("failed", f"{SHOP}.fragile") == load.bad, within_seconds=60)

        assert load.good > AWAY_SECONDS * 20
        assert exporter.value("taskapp_queue_depth") == exporter.value("taskapp_messages_held") == 0
        assert exporter.value("taskapp_task_run_seconds_count", type=f"{SHOP}.greet") == load.good
        assert exporter.value("taskapp_dead_letters", reason="failed") == load.bad
        eventually(lambda: done_in_the_last_hour(address) == load.good)
    finally:
        for watcher in watchers:
            watcher.close()
