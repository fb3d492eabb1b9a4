"""Malformed messages of every kind: none ends a worker, none is destroyed, good tasks behind them run at once."""

from __future__ import annotations

import contextlib
import time
from collections import Counter

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskapp.engine.dead_letters import DeadLetter
from taskapp.redis.keys import Keys
from tests.faults.harness import Bench
from tests.faults.malformed import MIB, Malformed, kinds
from tests.faults.outcome import Outcome
from tests.faults.pools import play_in_pools
from tests.faults.processes import Pool, Worker
from tests.faults.producers import Submission, Submitter, acknowledged
from tests.support import eventually

FAULT = "malformed messages"
SET_ASIDE = "renamed them to"
PLAYS_STOCK = True
POOLS: dict[str, Pool] = {"high": "default", "default": "prefork", "critical": "threads", "low": "solo"}
"""Each pool meets every kind, in a queue of its own."""
GOOD_WITHIN_SECONDS = 5.0
PARKED_SECONDS = 1.0
WRONG_KEY_PRIORITY = 3
NEXT_WITHIN_SECONDS = 15.0


def play(bench: Bench) -> Outcome:
    """Put all kinds in front of good tasks, in the way of each pool."""
    if bench.engine == "stock":
        return _play_stock(bench)
    return play_in_pools(bench, POOLS, _play_queue, parked_seconds=PARKED_SECONDS)


def _play_queue(bench: Bench, producer: Submitter, queue: str, worker: Worker) -> list[Submission]:
    malformed = kinds(bench.sized(2, 50, 50) * MIB)
    _push_raw(bench, queue, malformed)
    good = producer.submit("faults.note", 20, queue=queue)
    bench.runs.await_ended(acknowledged(good), 60)
    waits = [run.started_at - one.answered_at for one in good for run in bench.runs.of(one.id)[:1]]
    slowest = max(waits, default=0.0)
    limit_seconds = GOOD_WITHIN_SECONDS + bench.sized(0, 5, 5)  # 150 MiB pass through in front of them
    bench.judge.require(slowest <= limit_seconds, f"{queue}: a good task waited {slowest:.1f} s behind them")
    _judge_letters(bench, queue, malformed)
    _judge_wrong_key(bench, queue)
    bench.require_alive(worker)
    last = producer.submit("faults.note", 5, queue=queue)
    bench.judge.require(bench.runs.await_ended(acknowledged(last), 10), f"{queue}: its worker runs nothing any more")
    bench.judge.require_none(bench.runs.repeated(acknowledged(good + last)), f"{queue}: ran twice")
    return good + last


def _push_raw(bench: Bench, queue: str, malformed: list[Malformed]) -> None:
    """Push all at once, so that the worker finds them in front of all that follows."""
    # Never repeated: a client that takes a busy server for dead would push all of them again.
    client = redis.Redis(port=bench.redis.port, socket_timeout=None, retry=Retry(NoBackoff(), 0))
    pipeline = client.pipeline(transaction=True)
    pipeline.set(Keys().ready(queue, WRONG_KEY_PRIORITY), "no list")
    pipeline.set(Keys().kombu(queue, WRONG_KEY_PRIORITY), "not ours")
    for one in malformed:
        pipeline.lpush(queue, one.raw)
    pipeline.execute()


def _judge_letters(bench: Bench, queue: str, malformed: list[Malformed]) -> None:
    """Every message is among the dead letters, byte for byte and with a reason, and nothing else is."""
    wanted = Counter(one.buried_as or one.raw for one in malformed if not one.may_run)
    with contextlib.suppress(AssertionError):
        eventually(lambda: wanted <= _raws(bench.dead_letters(queue)), 20 + bench.lease_seconds, every_seconds=0.5)
    letters = bench.dead_letters(queue)
    missing, ran = wanted - _raws(letters), _raws(letters)
    for one in malformed:
        raw = one.buried_as or one.raw
        bench.judge.require(raw not in missing, f"{queue}: not among the dead letters: {one.kind}")
        if one.may_run and not ran[raw]:
            bench.judge.remark(f"{queue}: ran: {one.kind}")
    strangers = _raws(letters) - Counter(one.buried_as or one.raw for one in malformed)
    bench.judge.require(not strangers, f"{queue}: buried and never sent: {[raw[:60] for raw in strangers]}")
    speechless = [str(letter.raw[:60]) for letter in letters if not letter.reason or not letter.error]
    bench.judge.require_none(speechless, f"{queue}: dead letters without a reason")


def _raws(letters: list[DeadLetter]) -> Counter[bytes]:
    return Counter(letter.raw for letter in letters)


def _judge_wrong_key(bench: Bench, queue: str) -> None:
    """The key of a wrong type was renamed aside, as it was, and reported; one with kombu's name stays."""
    client = bench.redis.client
    others = client.get(Keys().kombu(queue, WRONG_KEY_PRIORITY))
    bench.judge.require(others == "not ours", f"{queue}: a key that is not taskapp's was changed: {others!r}")
    client.delete(Keys().kombu(queue, WRONG_KEY_PRIORITY))
    aside = list(client.scan_iter(f"taskapp:{{{queue}}}:aside:*"))
    kept = [client.get(key) for key in aside]
    bench.judge.require(kept == ["no list"], f"{queue}: a key of a wrong type was not renamed aside: {kept}")
    reported = SET_ASIDE in "".join(worker.process.output() for worker in bench.workers)
    bench.judge.require(reported, f"{queue}: nobody reported the key of a wrong type")


def _play_stock(bench: Bench) -> Outcome:
    """Play the kinds one by one on an empty server, with a new worker after each that harmed one."""
    fates: dict[str, list[str]] = {"ended the worker": [], "were not kept": [], "blocked a good task": []}
    client, sent = redis.Redis(port=bench.redis.port), []
    producer, worker = bench.start_submitter(), bench.start_worker("stock")
    # The kinds in the engine's own format mean nothing to it.
    for one in (one for one in kinds(50 * MIB) if "our header" not in one.kind and "wrapper" not in one.kind):
        client.lpush("default", one.raw)
        good = producer.submit("faults.note")
        _await_either(bench, worker, good)
        if worker.exited:
            fates["ended the worker"].append(one.kind)
        elif bench.runs.ended(acknowledged(good)):
            sent += good
        else:
            fates["blocked a good task"].append(one.kind)
        kept = _is_kept(client, one.raw)
        if not one.may_run and not kept:
            fates["were not kept"].append(one.kind)
        if worker.exited or kept:
            bench.kill(worker)
            client.flushall()
            worker = bench.start_worker("stock")
    for fate, those in fates.items():
        bench.judge.require(not those, f"{len(those)} kinds {fate}: {', '.join(those)}")
    return bench.outcome(sent)


def _await_either(bench: Bench, worker: Worker, good: list[Submission]) -> None:
    """Return when ``good`` ended, or its worker, or patience."""
    deadline = time.monotonic() + NEXT_WITHIN_SECONDS
    while not worker.exited and time.monotonic() < deadline:
        if bench.runs.await_ended(acknowledged(good), 0.2):
            # What kills a worker may do so a moment after the good task.
            bench.runs.watch(0.5)
            return


def _is_kept(client: redis.Redis, raw: bytes) -> bool:
    """Return whether the message is still anywhere in Redis, ready or unacknowledged."""
    ready = client.lrange("default", 0, -1) if client.type("default") == b"list" else []
    identity = raw[raw.find(b'"id":') :][:50] if b'"id":' in raw else b""
    return raw in ready or any(identity and identity in entry for entry in client.hvals("unacked"))
