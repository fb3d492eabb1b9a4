"""Nodes on one server, and what befalls them at random: each fault alone, and several at the same time."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import psutil

from tests.faults.breaks import BREAKS, Breaks
from tests.faults.disturbances import Disturbance, Disturbances
from tests.faults.harness import Bench
from tests.faults.outcome import play_for
from tests.faults.processes import Pool, Worker
from tests.faults.wire import Wire

CONCURRENCY = 4
DRAIN_SECONDS = 4.0
EXIT_SECONDS = 12.0
"""How long a node may take to exit after SIGTERM: its drain deadline, and a start that it may be in the midst of."""
REST_SECONDS = 2.0
"""How long a node, or the server, is left alone between two faults that last: leases are renewed meanwhile."""


@dataclass(frozen=True)
class Setup:
    """One kind of node."""

    name: str
    pool: Pool
    variables: dict[str, str] = field(default_factory=dict)


SETUPS = (
    Setup("uvloop", "default", {"TASKAPP_CHILD_PROCESSES": "2"}),
    Setup("prefork", "prefork"),
    Setup("asyncio", "default", {"TASKAPP_EVENT_LOOP": "asyncio", "TASKAPP_CHILD_PROCESSES": "2"}),
    Setup("threads", "threads"),
)


@dataclass
class Node:
    """One place for a node: its connection to the server, and the node that runs there now."""

    setup: Setup
    wire: Wire
    breaks: Breaks
    worker: Worker
    is_taken: bool = False
    """Whether a fault that lasts is under way, or was a moment ago."""


class History:
    """Nodes on one server, and what befalls them."""

    def __init__(self, bench: Bench, setups: Collection[Setup]) -> None:
        self.bench, self.random, self.lease_seconds = bench, bench.random, bench.lease_seconds
        self.done = Disturbances()
        self.counts: Counter[str] = Counter()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._server_is_taken = False
        self.nodes = [self._settle_in(setup) for setup in setups]
        bench.await_ready(*[node.worker for node in self.nodes])

    def _settle_in(self, setup: Setup) -> Node:
        breaks = Breaks(self.bench.redis.port, self.random.getrandbits(32))
        wire = Wire(breaks.port)
        return Node(setup, wire, breaks, self._start(setup, wire))

    def _start(self, setup: Setup, wire: Wire) -> Worker:
        variables = {**setup.variables, "TASKAPP_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}"}
        return self.bench.start_worker(
            setup.name, "-Q", "default,high", pool=setup.pool, concurrency=CONCURRENCY, variables=variables,
            ready=False, broker_url=wire.url,
        )  # fmt: skip

    def go_on_for(self, seconds: float) -> None:
        """Do one thing after another, several at the same time, for ``seconds``."""
        ends_at = time.monotonic() + seconds
        while (now := time.monotonic()) < ends_at:
            next_at = now + self.random.uniform(0.1, 0.9)
            self._do_what_is_due_until(next_at)
            self._do_something()

    def heal(self) -> None:
        """End all that was begun, and have every node take tasks again."""
        while self._later:
            self._do_what_is_due_until(self._later[0][0])
        self.bench.await_ready(*[node.worker for node in self.nodes])

    def _do_what_is_due_until(self, moment: float) -> None:
        while self._later and self._later[0][0] <= moment:
            at, _, act = heappop(self._later)
            play_for(at - time.monotonic())
            act()
        play_for(moment - time.monotonic())

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        heappush(self._later, (time.monotonic() + seconds, next(self._order), act))

    def _do_something(self) -> None:
        name = self.random.choices(list(ACTS), [weight for weight, _ in ACTS.values()])[0]
        if ACTS[name][1](self):
            self.counts[name] += 1

    def _note(self, what: str) -> None:
        """Record what is done, for the analysis of a failed history."""
        with (self.bench.directory / "history.log").open("a") as log:
            log.write(f"{time.monotonic():.3f} {what}\n")

    # Each returns whether it was done.

    def break_connections(self) -> bool:
        what = self.random.choice(BREAKS)
        for node in self.random.choice((self.nodes, [self.random.choice(self.nodes)])):
            node.breaks.do(what)
            self._note(f"{node.worker.name}: connections break, {what}")
        return True

    def kill(self) -> bool:
        node = self._free_node()
        if node is None:
            return False
        self._note(f"{node.worker.name}: killed")
        killed_at = self.bench.kill(node.worker)
        self.done.of_nodes.append(Disturbance(node.worker.name, killed_at, killed_at))
        node.worker = self._start(node.setup, node.wire)
        return True

    def kill_child(self) -> bool:
        node = self._free_node()
        children = sorted(node.worker.children) if node is not None else []
        if node is None or not children:
            return False
        pid, killed_at = self.random.choice(children), time.monotonic()
        self._note(f"{node.worker.name}: child {pid} killed")
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
        self.done.of_nodes.append(Disturbance(node.worker.name, killed_at, killed_at, pid))
        return True

    def drain(self) -> bool:
        node = self._free_node()
        if node is None:
            return False
        self._note(f"{node.worker.name}: told to end")
        old, begun_at = node.worker, node.worker.terminate()
        node.worker = self._start(node.setup, node.wire)
        self._after(EXIT_SECONDS, lambda: self._judge_exit(old, begun_at))
        return True

    def _judge_exit(self, old: Worker, begun_at: float) -> None:
        judge, now = self.bench.judge, time.monotonic()
        was_away = any(begun_at <= end and begin <= now for begin, end in self._server_away(now))
        if was_away:
            # It may wait for the server, and give back late what it held.
            self.done.of_nodes.append(Disturbance(old.name, begun_at, now))
        exited = old.exited_within(EXIT_SECONDS if was_away else 0.0)
        judge.require(exited, f"{old.name} did not exit within {EXIT_SECONDS:g} s of SIGTERM")

    def _server_away(self, now: float) -> list[tuple[float, float]]:
        return [(begin, min(end, now)) for begin, end in self.done.of_server]

    def freeze(self) -> bool:
        return self._part(lambda worker: worker.freeze, lambda worker: worker.thaw)

    def cut(self) -> bool:
        resets = self.random.random() < 0.5
        node = self._free_node()
        if node is None:
            return False
        return self._part_node(node, node.wire.cut, lambda: node.wire.mend(reset=resets))

    def _part(self, part: Callable[[Worker], Callable[[], Any]], join: Callable[[Worker], Callable[[], Any]]) -> bool:
        node = self._free_node()
        return node is not None and self._part_node(node, part(node.worker), join(node.worker))

    def _part_node(self, node: Node, part: Callable[[], Any], join: Callable[[], Any]) -> bool:
        """Part a node from the server: so shortly that its lease lives, or for longer than that."""
        is_short = self.random.random() < 0.5
        if is_short and self._server_is_taken:
            return False
        share = self.random.uniform(0.1, 0.4) if is_short else self.random.uniform(1.5, 2.5)
        node.is_taken, worker, begun_at = True, node.worker, time.monotonic()
        away = Disturbance(worker.name, begun_at, float("inf"))
        (self.done.out_of_touch if is_short else self.done.of_nodes).append(away)
        self._note(f"{worker.name}: out of touch for {share * self.lease_seconds:.2f} s, {part.__qualname__}")
        part()

        def end() -> None:
            join()
            self._note(f"{worker.name}: back")
            away.ended_at = time.monotonic() + REST_SECONDS
            self._after(REST_SECONDS, lambda: setattr(node, "is_taken", False))

        self._after(share * self.lease_seconds, end)
        return True

    def _free_node(self) -> Node | None:
        """Return one that takes tasks and that nothing else is done to; ``None``: all have something to bear."""
        free = [node for node in self.nodes if not node.is_taken and node.worker.ready]
        return self.random.choice(free) if free else None

    def kill_server(self) -> bool:
        return self._take_server(self.bench.redis.kill, self.bench.redis.start, self.random.uniform(0.2, 4.0))

    def freeze_server(self) -> bool:
        server, seconds = self.bench.redis, self.random.uniform(0.1, 2.0) * self.lease_seconds
        return self._take_server(server.freeze, server.thaw, seconds)

    def refuse_writes(self) -> bool:
        refuse, allow = self.random.choice((
            (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
            (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
            (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        ))  # fmt: skip
        execute = self.bench.redis.client.execute_command
        seconds = self.random.uniform(0.1, 0.4) * self.lease_seconds
        return self._take_server(lambda: execute(*refuse), lambda: execute(*allow), seconds)

    def flush_scripts(self) -> bool:
        if not self._server_is_taken:
            self.bench.redis.client.script_flush()
        return not self._server_is_taken

    def _take_server(self, take: Callable[[], Any], give_back: Callable[[], Any], seconds: float) -> bool:
        shortly_parted = any(one.ended_at > time.monotonic() for one in self.done.out_of_touch)
        if self._server_is_taken or shortly_parted:
            return False
        self._server_is_taken, begun_at = True, time.monotonic()
        position = len(self.done.of_server)
        self.done.of_server.append((begun_at, float("inf")))
        self._note(f"the server is away for {seconds:.2f} s")
        take()

        def end() -> None:
            give_back()
            self._note("the server is back")
            self.done.of_server[position] = (begun_at, time.monotonic() + REST_SECONDS)
            self._after(REST_SECONDS, lambda: setattr(self, "_server_is_taken", False))

        self._after(seconds, end)
        return True


ACTS: dict[str, tuple[int, Callable[[History], bool]]] = {
    "break": (10, History.break_connections),
    "kill": (3, History.kill),
    "kill a child": (2, History.kill_child),
    "drain": (2, History.drain),
    "freeze": (3, History.freeze),
    "cut": (3, History.cut),
    "kill the server": (1, History.kill_server),
    "freeze the server": (1, History.freeze_server),
    "refuse writes": (2, History.refuse_writes),
    "flush scripts": (1, History.flush_scripts),
}
"""What may befall, and how often compared with the others."""
