"""Redis is full: producers hear of it, consumers drain, leases hold; an evicting policy is refused."""

from __future__ import annotations

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome
from tests.faults.producers import Submission, acknowledged
from tests.support import eventually

FAULT = "Redis full, at start and while running"
NO_LIMIT = 0
ROOM_ENOUGH_BYTES = 100_000_000


def play(bench: Bench) -> Outcome:
    """Fill the server before a worker starts and again while workers are busy."""
    bench.redis.client.config_set("maxmemory-policy", "noeviction")
    producer = bench.start_submitter()
    sent = producer.submit("faults.note", bench.sized(20, 100, 1000))
    _fill(bench)
    bench.start_worker("first", ready=False)
    refused = producer.submit("faults.note", 3)
    drained = bench.runs.await_ended(acknowledged(sent), 30)
    bench.judge.require(drained, "a worker started on a full server does not drain it")

    _empty(bench)
    bench.await_ready(*bench.workers)
    bench.start_worker("second", pool="prefork")
    # Each worker's lease is held by long tasks; the others are waiting when the server fills up.
    held = producer.submit("faults.hold", 4, 2 * bench.lease_seconds)
    bench.judge.require(bench.runs.await_started(acknowledged(held), 20), "tasks do not start after the first outage")
    waiting = producer.submit("faults.note", 20)
    _fill(bench)
    refused += producer.submit("faults.note", 3)
    drained = bench.runs.await_ended(acknowledged(held + waiting), 4 * bench.lease_seconds + 10)
    bench.judge.require(drained, "running workers do not drain a full server")
    _empty(bench)
    sent += held + waiting + producer.submit("faults.note", 20)
    bench.runs.await_ended(acknowledged(sent), bench.patience_seconds)
    bench.watch_for_repeats()

    _judge_refusals(bench, refused)
    bench.judge.require_none(bench.runs.repeated(acknowledged(sent)), "ran twice")
    bench.require_alive(*bench.workers)
    _judge_evicting(bench)
    return bench.outcome(sent + refused)


def _fill(bench: Bench) -> None:
    """Let the server count as full, however little it holds."""
    bench.redis.client.config_set("maxmemory", 1)


def _empty(bench: Bench) -> None:
    bench.redis.client.config_set("maxmemory", NO_LIMIT)


def _judge_refusals(bench: Bench, refused: list[Submission]) -> None:
    """A full server is named as the reason, and what it refused never runs."""
    bench.judge.require_none([one.id for one in refused if one.acknowledged], "acknowledged by a full server")
    vague = {f"{one.error}: {one.message}" for one in refused if "full" not in (one.message or "")}
    bench.judge.require_none(vague, "errors do not say that Redis is full")
    others = {str(one.error) for one in refused} - {"BrokerFull"}
    bench.judge.require_none(others, "errors of another kind than BrokerFull")
    bench.judge.require_none(bench.runs.started({one.id for one in refused}), "ran though they were refused")


def _judge_evicting(bench: Bench) -> None:
    bench.redis.client.config_set("maxmemory-policy", "allkeys-lru")
    bench.redis.client.config_set("maxmemory", ROOM_ENOUGH_BYTES)
    worker = bench.start_worker("evicted", ready=False)
    eventually(lambda: worker.exited or worker.ready, within_seconds=60)
    output = worker.process.output()
    bench.judge.require(worker.exited, "a worker starts on a server that evicts keys")
    named = "CONFIG SET maxmemory-policy noeviction" in output
    bench.judge.require(named, f"the refusal does not name the command that mends it: {output[-300:]}")
