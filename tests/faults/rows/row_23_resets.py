"""Connections break again and again: whole, in the middle of an answer, half open; one node's or all."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.faults.breaks import BREAKS, Breaks
from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, play_for
from tests.faults.processes import Pool, Worker
from tests.faults.producers import Submission, step

FAULT = "connections reset repeatedly"
WORKING_WITHIN_SECONDS = 5.0
PER_SECOND = 30
LEASE_LOST = "was silent for longer than its lease"


@dataclass(frozen=True)
class Kind:
    """A node to break the connections of; it alone takes ``queue``."""

    queue: str
    pool: Pool
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[tuple[str, float | None], ...]:
        """What it runs, and how long; children are forked while connections are open."""
        everywhere = (("faults.note", None), ("faults.hold", 0.3))
        own = (("faults.note_async", None), ("faults.hold_async", 0.3), ("faults.compute", 0.2))
        return (*everywhere, *own) if self.pool == "default" else everywhere


UVLOOP = Kind("default", "default", {"TASKAPP_EVENT_LOOP": "uvloop", "TASKAPP_CHILD_PROCESSES": "2"})
ASYNCIO = Kind("high", "default", {"TASKAPP_EVENT_LOOP": "asyncio", "TASKAPP_CHILD_PROCESSES": "2"})
PREFORK, THREADS = Kind("critical", "prefork"), Kind("low", "threads")


def play(bench: Bench) -> Outcome:
    """Break connections while tasks of all kinds come, run and end."""
    kinds = bench.sized((UVLOOP,), (UVLOOP, ASYNCIO, PREFORK), (UVLOOP, ASYNCIO, PREFORK, THREADS))
    ways = {kind.queue: Breaks(bench.redis.port, bench.random.random()) for kind in kinds}
    workers = {kind.queue: _start(bench, kind, ways[kind.queue]) for kind in kinds}
    bench.await_ready(*workers.values())
    producer, steady = bench.start_submitter(), bench.start_submitter()
    # The children are there before the first break, and hold nothing of their parents'.
    sent = [one for kind in kinds for name, seconds in kind.tasks for one in _submit(producer, kind, name, seconds)]
    assert bench.runs.await_ended([one.id for one in sent], 30), "the workers do not work before anything breaks"

    rounds = bench.sized(25, 120, 600)
    seconds = 0.25 * rounds
    flow = [
        step(name, *(() if takes is None else (takes,)), queue=kind.queue)
        for kind in kinds for name, takes in kind.tasks
    ]  # fmt: skip
    steady.begin_workflows(*(flow * int(seconds * PER_SECOND / len(flow) + 1)), per_second=PER_SECOND)
    for _ in range(rounds):
        what = bench.random.choice(BREAKS)
        for queue in bench.random.choice([list(ways), [bench.random.choice(list(ways))]]):
            ways[queue].do(what)
        play_for(bench.random.uniform(0.05, 0.45))
    ended_last = _judge_they_work(bench, kinds, producer)
    sent += ended_last + steady.finish()
    bench.runs.await_ended([one.id for one in sent if one.acknowledged], bench.patience_seconds)
    bench.watch_for_repeats()

    bench.require_alive(*workers.values())
    _judge_repeats(bench, list(workers.values()), sent)
    bench.await_settled()
    outcome = bench.outcome(sent, recoveries=[_waited(bench, one) for one in ended_last])
    for way in ways.values():
        way.close()
    return outcome


def _start(bench: Bench, kind: Kind, way: Breaks) -> Worker:
    return bench.start_worker(
        kind.queue, "-Q", kind.queue, pool=kind.pool, concurrency=4, variables=kind.variables, ready=False,
        broker_url=way.url,
    )  # fmt: skip


def _submit(producer, kind: Kind, name: str, seconds: float | None) -> list[Submission]:
    return producer.submit(name, 2, *(() if seconds is None else (seconds,)), queue=kind.queue)


def _judge_they_work(bench: Bench, kinds, producer) -> list[Submission]:
    """Every kind of task of every node begins soon after the last break."""
    sent = [one for kind in kinds for name, seconds in kind.tasks for one in _submit(producer, kind, name, seconds)]
    bench.runs.await_started([one.id for one in sent], bench.patience_seconds)
    slowest = max(_waited(bench, one) for one in sent)
    bench.judge.require(slowest <= WORKING_WITHIN_SECONDS, f"a node works again only after {slowest:.1f} s")
    return sent


def _waited(bench: Bench, one: Submission) -> float:
    return min((run.started_at - one.sent_at for run in bench.runs.of(one.id)), default=float("inf"))


def _judge_repeats(bench: Bench, workers: list[Worker], sent: list[Submission]) -> None:
    """Only a node that says it lost its lease may have tasks that began again."""
    innocent = {worker.name for worker in workers if LEASE_LOST not in worker.process.output()}
    repeated = bench.runs.repeated([one.id for one in sent])
    unexplained = {task_id for task_id in repeated if bench.runs.of(task_id)[0].worker in innocent}
    bench.judge.require_none(unexplained, "ran twice though no lease was lost")
    bench.judge.remark(f"{len(repeated)} began again; {len(workers) - len(innocent)} nodes lost a lease")
