"""What clients called, what ran and what was leased, id by id; and which keys of limits are left."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import redis

from tests.faults.disturbances import Disturbance, Disturbances
from tests.faults.harness import Bench
from tests.faults.leases_seen import Lease
from tests.faults.limit_tasks import CALLS_SUFFIX
from tests.faults.rows.row_23_resets import LEASE_LOST
from tests.faults.runs import Run

PARTS_OF_LIMITS = ("slots", "unique", "lane", "gate", "fair", "blocked", "limited", "runnable", "opened", "checks")
"""What the names of keys hold that must not outlive the tasks they are about."""


@dataclass
class Call:
    """One call of a client, times by CLOCK_MONOTONIC."""

    id: str
    """Its own, which its task has unless another one stands for it."""
    sent_at: float
    answered_at: float | None = None
    """``None``: its client was killed meanwhile."""
    answer: str | None = None
    """The id of the task that the call returned, or was refused for."""
    is_refused: bool = False
    error: str | None = None

    @property
    def group(self) -> tuple[str, str]:
        """The name of its task type, and its key."""
        return group_of(self.id)


def group_of(task_id: str) -> tuple[str, str]:
    """Return the name of the task type and the key that an id tells of."""
    name, key, _ = task_id.split(".")
    return name, key


class History:
    """All that is known once a storm is over."""

    def __init__(self, bench: Bench, calls: Iterable[Path], leases: list[Lease] | None, deaths: dict[str, float]):
        self.bench, self.leases, self.deaths = bench, leases, deaths
        self.calls = [call for path in calls for call in _calls(path)]
        self.done = Disturbances([Disturbance(life, at, at) for life, at in deaths.items()])
        self.unwell = {worker.name for worker in bench.workers if LEASE_LOST in worker.process.output()}
        """Lives of nodes that this machine was too busy for: their leases ended while they lived."""
        self.done.of_nodes += [Disturbance(life, 0.0, float("inf")) for life in self.unwell]
        bench.runs.refresh()

    @cached_property
    def acknowledged(self) -> set[str]:
        """The ids that clients were answered with."""
        return {call.answer for call in self.calls if call.answer}

    @cached_property
    def runs(self) -> list[tuple[str, Run]]:
        """All runs with their ids, in the order they started."""
        pairs = [(task_id, run) for task_id, runs in self.bench.runs.by_id.items() for run in runs]
        return sorted(pairs, key=lambda pair: pair[1].started_at)

    def end_of(self, run: Run) -> float:
        """Return when ``run`` ended, or its node was killed."""
        ends = [run.ended_at, self.deaths.get(run.worker)]
        return max(run.started_at, min((end for end in ends if end is not None), default=float("inf")))

    def calls_by_group(self) -> Iterator[tuple[str, str, list[Call]]]:
        """Yield name, key and calls in the order they were made, those without an answer aside."""
        found: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in sorted(self.calls, key=lambda call: call.sent_at):
            if call.answer:
                found[call.group].append(call)
        for (name, key), calls in found.items():
            yield name, key, calls

    @cached_property
    def leases_of(self) -> dict[str, list[Lease]]:
        """The claims of each id in their order."""
        found: defaultdict[str, list[Lease]] = defaultdict(list)
        for lease in self.leases or ():
            found[lease.id].append(lease)
        return found

    @cached_property
    def arguments(self) -> dict[str, list[tuple[Run, str]]]:
        """The runs of each id, with the call whose arguments they had."""
        written: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for line in Path(f"{self.bench.runs.log}{CALLS_SUFFIX}").read_text().splitlines():
            task_id, pid, _, call = line.split(" ")
            written[task_id, int(pid)].append(call)
        found: defaultdict[str, list[tuple[Run, str]]] = defaultdict(list)
        for task_id, run in self.runs:
            found[task_id].append((run, written[task_id, run.pid].pop(0)))
        return found


def _calls(path: Path) -> list[Call]:
    calls: dict[str, Call] = {}
    for line in path.read_text().splitlines():
        said = json.loads(line)
        if (call := calls.get(said["call"])) is None:
            calls[said["call"]] = Call(said["call"], said["at"])
            continue
        call.answered_at, call.error = said["at"], said.get("error")
        call.answer = said.get("answer") or said.get("refused_for")
        call.is_refused = "refused_for" in said
    return list(calls.values())


def most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """Return how many of ``spans`` lie over one another at most."""
    some = [(begin, end) for begin, end in spans if end > begin]
    changes = sorted([(begin, 1) for begin, _ in some] + [(end, -1) for _, end in some])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def keys_left(client: redis.Redis) -> set[str]:
    """Return the names of keys about limits that tasks have left behind."""
    found: set[str] = set()
    for key in client.scan_iter("taskapp:*", count=1000):
        if any(part in key for part in PARTS_OF_LIMITS) and not _ends_by_itself(client, key):
            found.add(key)
    return found


def _ends_by_itself(client: redis.Redis, key: str) -> bool:
    """Return whether ``key`` is a unique key that is to outlive its task, and expires."""
    return key.startswith("taskapp:unique:limits.for_a_time") and client.pttl(key) > 0


def await_none_left(client: redis.Redis, within_seconds: float) -> set[str]:
    """Return the names of keys about limits that are left ``within_seconds`` from now."""
    deadline = time.monotonic() + within_seconds
    while (left := keys_left(client)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left
