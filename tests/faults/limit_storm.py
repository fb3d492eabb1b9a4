"""Nodes and clients that are killed over and over while tasks with limits come, wait and run."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from pathlib import Path

from tests.faults.harness import Bench
from tests.faults.leases_seen import LeasesSeen
from tests.faults.limit_client import Plan
from tests.faults.limit_history import History
from tests.faults.outcome import play_for
from tests.faults.processes import Worker
from tests.faults.producers import ROOT
from tests.support import Process, clean_environment, eventually

TASKS = "tests.faults.limit_tasks"


class Storm:
    """Nodes on one server, and clients."""

    def __init__(
        self, bench: Bench, plans: Collection[Plan], nodes: int = 3, concurrency: int = 8, watches: bool = True
    ) -> None:
        self.bench, self.random, self._concurrency = bench, bench.random, concurrency
        self.seen = LeasesSeen(bench.redis.port) if watches else None
        self.deaths: dict[str, float] = {}
        self.calls: list[Path] = []
        self._nodes = [f"n{number}" for number in range(nodes)]
        self.workers: dict[str, Worker] = {}
        self._plans = list(plans)
        self.clients: dict[str, Process] = {}

    def start(self) -> None:
        """Start the nodes and the clients; return when all of them are at work."""
        self.start_nodes()
        for plan in self._plans:
            self.start_client(plan)
        eventually(lambda: all(calls.stat().st_size for calls in self.calls))

    def start_nodes(self) -> None:
        """Start the nodes and return when all take tasks."""
        self.workers = {name: self._start_node(name) for name in self._nodes}
        self.bench.await_ready(*self.workers.values())

    def _start_node(self, name: str) -> Worker:
        return self.bench.start_worker(
            name, include=TASKS, concurrency=self._concurrency, ready=False, variables={"TASKAPP_CRASH_LIMIT": "1000"}
        )

    def start_client(self, plan: Plan) -> Process:
        """Start one client; its calls have names of its own."""
        name = f"{plan.name}{len(self.calls)}"
        own = Plan(**{**vars(plan), "name": name, "seed": plan.seed + len(self.calls)})
        calls = self.bench.directory / f"{name}.calls"
        calls.touch()
        self.calls.append(calls)
        environment = clean_environment(
            PYTHONPATH=str(ROOT), TASKAPP_BROKER_URL=self.bench.redis.url, TASKAPP_INCLUDE=TASKS,
            TASKAPP_DATA_DIR=str(self.bench.directory / "data"),
        )  # fmt: skip
        argv = [sys.executable, "-m", "tests.faults.limit_client", str(calls), own.text]
        self.clients[plan.name] = Process(argv, self.bench.directory / f"{name}.log", environment, cwd=ROOT)
        return self.clients[plan.name]

    def kill_a_node(self) -> None:
        """Kill a node that takes tasks, and start another one in its place; wait if all are starting."""
        ready = [name for name, worker in self.workers.items() if worker.ready]
        name = self.random.choice(ready or self._nodes)
        self.bench.await_ready(self.workers[name])
        worker = self.workers[name]
        self.deaths[worker.name] = self.bench.kill(worker)
        self.workers[name] = self._start_node(name)

    def kill_a_client(self) -> None:
        """Kill a client, and start another one in its place."""
        name = self.random.choice(list(self.clients))
        self.clients.pop(name).kill()
        [plan] = [plan for plan in self._plans if plan.name == name]
        self.start_client(plan)

    def rage(self, kills: int, gap_seconds: float, kills_for_a_client: int = 2) -> None:
        """Kill ``kills`` nodes, one after another, and a client after each ``kills_for_a_client`` of them."""
        for number in range(1, kills + 1):
            play_for(self.random.uniform(0.2, 2 * gap_seconds - 0.2))
            self.kill_a_node()
            if self.clients and number % kills_for_a_client == 0:
                self.kill_a_client()

    def calm(self, within_seconds: float) -> History:
        """End the clients, let all tasks come to their end, and return what happened."""
        for client in self.clients.values():
            client.kill()
        self.bench.await_ready(*self.workers.values())
        deadline = time.monotonic() + within_seconds
        while self._is_busy() and time.monotonic() < deadline:
            play_for(0.1)
        if self.seen:
            self.seen.close()
        leases = self.seen.leases if self.seen else None
        return History(self.bench, self.calls, leases, self.deaths)

    def _is_busy(self) -> bool:
        """Return whether a message with limits waits or is leased."""
        client = self.bench.redis.client
        return any(
            True
            for pattern in ("taskapp:leased:*", "taskapp:{*}:limited:messages")
            for _ in client.scan_iter(pattern, count=1000)
        )
