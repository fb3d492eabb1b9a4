"""Serves metrics over HTTP, read from the broker at each scrape; keeps no state."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, disable_created_metrics, make_wsgi_app, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from redis.exceptions import ResponseError

from taskapp.app.application import Celery
from taskapp.engine.circuits import Circuits
from taskapp.engine.completions import FinishedTasks
from taskapp.engine.counters import read_totals
from taskapp.engine.limit_numbers import LimitsAdmin
from taskapp.engine.queue_limits import QueueLimits
from taskapp.engine.snapshot import read_snapshot
from taskapp.errors import TaskappError
from taskapp.errors.schedules import NoSchedules
from taskapp.monitor import scrape
from taskapp.monitor.depth import declared_depths
from taskapp.monitor.hosts import Hosts, checked
from taskapp.monitor.limit_rows import limit_rows
from taskapp.outbox.opening import open_store
from taskapp.outbox.rows import OutboxStore
from taskapp.queues import TASK_ROUTES
from taskapp.redis.link import Link, all_answered
from taskapp.settings import Settings
from taskapp.transport.transport import is_over_redis
from taskapp.urls import revealed

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 2
"""How long a scrape waits for the database of the outbox."""
SECTIONS = ("memory", "persistence", "stats")


class Outbox:
    """Reads the outbox at each scrape; while its database does not answer, exports no values of it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._store: OutboxStore | None = None
        self._is_failing = False

    def read(self) -> list[Metric]:
        """Return the families of the outbox; an empty list while it cannot be read."""
        try:
            self._store = self._store or open_store(self._url, CONNECT_SECONDS)
            found = list(scrape.of_outbox(self._store.backlog()))
            self._store.close()  # each scrape has a thread of its own
        except TaskappError as error:
            if not self._is_failing:
                logger.warning("cannot read the outbox: %s", error, extra={"action": "outbox_unread"})
            self._is_failing = True
            return []
        self._is_failing = False
        return found


class BrokerCollector(Collector):
    """Reads the broker at each scrape; while it does not answer, exports no stale values."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app, self._settings = app, settings
        routes = {**TASK_ROUTES, **settings.route_table}
        self._known_types = {name: queue for name, queue in routes.items() if not any(sign in name for sign in "*?[")}
        self._is_failing = False
        self._outbox = Outbox(url) if (url := revealed(settings.outbox_url)) is not None else None

    def collect(self) -> Iterator[Metric]:
        """Yield all families; those the broker does not provide have no samples."""
        began_at = monotonic()
        found = {family.name: family for family in self._scrape()}
        if self._outbox is not None:
            found |= {family.name: family for family in self._outbox.read()}
        took = scrape.family("taskapp_scrape_seconds", {(): monotonic() - began_at})
        found[took.name] = took
        for family in scrape.named():
            yield found.get(family.name, family)

    def describe(self) -> Iterator[Metric]:
        """Yield the families without reading the broker."""
        yield from scrape.named()

    def _scrape(self) -> list[Metric]:
        try:
            found = list(self._read())
        except Exception as error:  # noqa: BLE001 - each transport has its own errors; logged once, shown by a gauge
            if not self._is_failing:
                logger.warning("cannot read the broker: %s", error, extra={"action": "broker_unread"})
            self._is_failing = True
            return [scrape.family("taskapp_broker_up", {(): 0})]
        self._is_failing = False
        return [scrape.family("taskapp_broker_up", {(): 1}), *found]

    def _read(self) -> Iterator[Metric]:
        queues, read = self._app.queue_names(), scrape.Read()
        if is_over_redis(self._app.conf.broker_url):
            with self._app.engine() as engine:
                snapshot = read_snapshot(engine.link, engine.prefix, queues)
                limits = QueueLimits(engine.link, engine.prefix).in_force(self._settings.queue_limit_table)
                of_tasks = limit_rows(LimitsAdmin(engine.link, engine.prefix).read_limits(), snapshot.queues)
                circuits = Circuits(engine.link, engine.prefix).read()
                read = read._replace(
                    snapshot=snapshot, queue_limits=limits, limits=of_tasks, circuits=circuits, info=_info(engine.link)
                )
        else:
            depths = declared_depths(self._app, queues)
            yield scrape.family("taskapp_queue_depth", {(queue, "all"): depth for queue, depth in depths.items()})
        # Run counters and finished tasks are kept next to the schedules: in the broker, or in the Redis of results.
        with suppress(NoSchedules), self._app.schedules() as register:
            totals = read_totals(register.link, register.prefix)
            read = read._replace(totals=totals, schedules=register.overview())
            # A key of that name that is not a stream belongs to another program; export the rest.
            with suppress(ResponseError):
                read = read._replace(finished=FinishedTasks(register.link, register.prefix).waiting())
        yield from scrape.families(read, self._known_types, queues)


def _info(link: Link) -> dict[str, str]:
    """Return the ``INFO`` fields of Redis."""
    texts = all_answered(link.pipeline([("INFO", section) for section in SECTIONS]))
    lines = (line for text in texts for line in text.decode().splitlines() if ":" in line)
    return dict(line.split(":", 1) for line in lines)


class Exporter:
    """Answers scrapes in threads, from ``start`` to ``stop``."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._settings = settings
        self.registry = CollectorRegistry()
        self.registry.register(BrokerCollector(app, settings))
        self._server: WSGIServer | None = None

    def start(self, address: str, port: int) -> int:
        """Listen on ``address``; return the port, which the system picks if ``port`` is 0.

        Raises:
            OSError: The port is taken, or the address does not belong to this machine.
        """
        # They add a second series per counter, which nothing here reads.
        disable_created_metrics()
        # The server answers from the moment it exists: keep it empty until it checks hosts.
        self._server, _ = start_http_server(port, addr=address, registry=CollectorRegistry())
        self._server.set_app(checked(make_wsgi_app(self.registry), Hosts(self._settings.web_hosts, address)))
        return int(self._server.server_port)

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
