"""Serves the metrics over HTTP: counts from Celery's events, depths read from the broker when scraped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import cast
from wsgiref.simple_server import WSGIServer

from celery import Celery
from prometheus_client import disable_created_metrics, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from taskapp.errors import NoEngine
from taskapp.monitor.depth import Depths, queue_depths
from taskapp.monitor.events import EventCounter, Receiver
from taskapp.monitor.metrics import METRICS, Metrics, row
from taskapp.queues import TASK_ROUTES
from taskapp.schedules.overview import Overview
from taskapp.settings import Settings

logger = logging.getLogger(__name__)
PAUSE_SECONDS = 1.0
"""Between two attempts to read events; short, since events sent meanwhile are not counted."""
QUIET_SECONDS = 60.0
"""After so long without any event the connection is made anew: its other end may have vanished silently."""


class ScrapeCollector(Collector):
    """What is read at each scrape: the depth of each queue, the nodes that are up, the broker."""

    def __init__(self, app: Celery, settings: Settings, counter: EventCounter) -> None:
        self._app, self._settings, self._counter = app, settings, counter
        self._is_failing = False

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges; no depth at all while the broker does not answer."""
        depths = self._depths()
        yield _family("taskapp_broker_up", 0 if depths is None else 1)
        yield _family("taskapp_nodes_up", self._counter.nodes_up())
        family = _family("taskapp_queue_depth")
        for (queue, priority), depth in (depths or {}).items():
            family.add_metric([queue, str(priority)], depth)
        yield family
        yield from self._schedules()

    def _schedules(self) -> Iterator[GaugeMetricFamily]:
        """Yield what schedules there are and how late they are; no samples where the broker keeps none."""
        seen = self._overview()
        states = _family("taskapp_schedules")
        for state, number in (seen.states if seen else {}).items():
            states.add_metric([state], number)
        yield states
        yield _family("taskapp_beat_lateness_seconds", seen.late_seconds if seen else None)
        yield _family("taskapp_beat_last_tick_timestamp_seconds", (seen.tick_at or 0.0) if seen else None)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name the gauges without asking the broker."""
        for metric in METRICS:
            if metric.kind is None:
                yield _family(metric.name)

    def _depths(self) -> Depths | None:
        try:
            depths = queue_depths(self._app, self._settings)
        except Exception as error:  # noqa: BLE001 - each transport has errors of its own; said once, and by a gauge
            if not self._is_failing:
                logger.warning("cannot read queue depths: %s", error, extra={"action": "depths_unread"})
            self._is_failing = True
            return None
        self._is_failing = False
        return depths

    def _overview(self) -> Overview | None:
        lend = getattr(self._app, "schedules", None)
        if self._is_failing or lend is None:
            return None
        try:
            with lend() as schedules:
                return cast("Overview", schedules.overview())
        except NoEngine:
            return None
        except Exception as error:  # noqa: BLE001 - the broker may go between two questions; no old number then
            logger.warning("cannot read schedules: %s", error, extra={"action": "schedules_unread"})
            return None


def _family(name: str, value: float | None = None) -> GaugeMetricFamily:
    metric = row(name)
    return GaugeMetricFamily(name, metric.help, value=value, labels=metric.labels or None)


class Exporter:
    """Reads events in a thread and answers scrapes in others, from ``start`` to ``stop``."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self.metrics = Metrics(settings.queues)
        self._counter = EventCounter(self.metrics, {**TASK_ROUTES, **settings.route_table})
        self.metrics.registry.register(ScrapeCollector(app, settings, self._counter))
        self._stopping = threading.Event()
        self._away_since: float | None = None
        self._reader = threading.Thread(target=self._read_events, name="events", daemon=True)
        self._server: WSGIServer | None = None

    def start(self, address: str, port: int) -> int:
        """Listen on ``address``; return the port, which ``0`` leaves to the system.

        Raises:
            OSError: The port is taken or the address is not this machine's.
        """
        # A second series for each counter, which nothing here reads.
        disable_created_metrics()
        self._server, _ = start_http_server(port, addr=address, registry=self.metrics.registry)
        self._reader.start()
        return int(self._server.server_port)

    def stop(self) -> None:
        """Stop listening."""
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()

    def _read_events(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read_until_quiet()
            except Exception as error:  # noqa: BLE001 - a monitor outlives whatever the broker does; said once
                if self._away_since is None:
                    logger.warning(
                        "cannot read events: %s; trying again until it works", error, extra={"action": "events_lost"}
                    )
                    self._away_since = time.monotonic()
                self._stopping.wait(PAUSE_SECONDS)

    def _read_until_quiet(self) -> None:
        with self._app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
            receiver = Receiver(connection, self._app, self._counter)
            if self._away_since is not None:
                away_seconds = time.monotonic() - self._away_since
                logger.warning("events are read again after %.0f s", away_seconds, extra={"action": "events_back"})
                self._away_since = None
            with suppress(TimeoutError):
                receiver.capture(limit=None, timeout=QUIET_SECONDS, wakeup=True)
