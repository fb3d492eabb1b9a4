"""Redis refuses writes for less than a lease while connections break: tasks that run are not begun again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.faults.breaks import Break, Breaks
from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, play_for
from tests.faults.processes import Pool, Worker
from tests.faults.producers import Submission
from tests.support import eventually

FAULT = "Redis refuses writes while connections break"
POOLS: dict[str, Pool] = {"default": "default", "high": "prefork"}
BREAKS: tuple[Break, ...] = ("all", "all", "one", "in_answer")
SHARE_OF_LEASE = 0.6
WORKING_WITHIN_SECONDS = 5.0


class Refusals:
    """Ways of a Redis to refuse writes: ``begin`` one, ``end`` it."""

    def __init__(self, bench: Bench) -> None:
        self._redis = bench.redis
        client: Any = bench.redis.client
        nobody = ("REPLICAOF", "NO", "ONE")
        self.begin: dict[str, Callable[[], Any]] = {
            "READONLY": lambda: client.execute_command("REPLICAOF", "127.0.0.1", 1),
            "NOREPLICAS": lambda: client.config_set("min-replicas-to-write", 1),
            "MISCONF": self._cannot_save,
            "OOM": lambda: client.config_set("maxmemory", 1),
        }
        self.end: dict[str, Callable[[], Any]] = {
            "READONLY": lambda: client.execute_command(*nobody),
            "NOREPLICAS": lambda: client.config_set("min-replicas-to-write", 0),
            "MISCONF": lambda: client.config_set("save", ""),
            "OOM": lambda: client.config_set("maxmemory", 0),
        }

    def _cannot_save(self) -> None:
        """Let a snapshot fail, in a server that must not write without one: its file is a folder."""
        client: Any = self._redis.client
        (self._redis.directory / "dump.rdb").mkdir(exist_ok=True)
        client.config_set("save", "3600 1")
        client.execute_command("BGSAVE", "SCHEDULE")
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")


def play(bench: Bench) -> Outcome:
    """Refuse in every way, several times; tasks longer than all of that are running."""
    bench.redis.client.config_set("maxmemory-policy", "noeviction")
    refusals = Refusals(bench)
    ways = {queue: Breaks(bench.redis.port, bench.random.random()) for queue in POOLS}
    workers = {
        queue: bench.start_worker(
            queue, "-Q", queue, pool=pool, concurrency=4, broker_url=ways[queue].url, ready=False
        )
        for queue, pool in POOLS.items()
    }  # fmt: skip
    bench.await_ready(*workers.values())
    producer = bench.start_submitter()
    rounds = list(refusals.begin) * bench.sized(1, 2, 8)
    lasts = 1.2 * len(rounds) * 2 * SHARE_OF_LEASE * bench.lease_seconds
    sent = [
        one
        for queue in POOLS
        for name in (bench.kinds if queue == "default" else ("",))
        for one in producer.submit(f"faults.hold{name}", 2, lasts, queue=queue)
    ]
    assert bench.runs.await_started([one.id for one in sent], 20), "the workers did not start their tasks"

    recoveries = []
    for refusal in rounds:
        refusals.begin[refusal]()
        # First one that nodes notice at once, so that they ask while everything is refused.
        for kind in ("all", bench.random.choice(BREAKS), bench.random.choice(BREAKS)):
            for way in ways.values():
                way.do(kind)
            play_for(SHARE_OF_LEASE * bench.lease_seconds / 3)
        refusals.end[refusal]()
        after = [one for queue in POOLS for one in producer.submit("faults.note", 2, queue=queue)]
        bench.runs.await_ended([one.id for one in after], bench.patience_seconds)
        recoveries += [_waited(bench, one) for one in after]
        # A whole lease, as a server that is only now and then out of reach gives.
        play_for(SHARE_OF_LEASE * bench.lease_seconds)
        sent += after
    bench.runs.await_ended([one.id for one in sent], lasts + bench.patience_seconds)
    bench.watch_for_repeats()

    bench.require_alive(*workers.values())
    bench.judge.require_none(bench.runs.repeated([one.id for one in sent]), "ran twice though no lease was lost")
    slowest = max(recoveries)
    bench.judge.require(slowest <= WORKING_WITHIN_SECONDS, f"a node works again only after {slowest:.1f} s")
    _judge_logs(bench, list(workers.values()))
    outcome = bench.outcome(sent, recoveries=recoveries)
    for way in ways.values():
        way.close()
    return outcome


def _waited(bench: Bench, one: Submission) -> float:
    return min((run.started_at - one.sent_at for run in bench.runs.of(one.id)), default=float("inf"))


def _judge_logs(bench: Bench, workers: list[Worker]) -> None:
    for worker in workers:
        output = worker.process.output()
        silent = {refusal for refusal in ("READONLY", "NOREPLICAS", "MISCONF") if refusal not in output}
        bench.judge.require_none(silent, f"refusals that the log of {worker.name} does not name")
