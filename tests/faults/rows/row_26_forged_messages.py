"""Headers and properties of every type: no worker ends, no slot is held, each runs or is buried, and told."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable

import redis
from celery import states

from taskapp.engine.envelope import unseal
from tests.faults.forged import Forged, forged
from tests.faults.harness import Bench
from tests.faults.outcome import Outcome
from tests.faults.pools import play_in_pools
from tests.faults.processes import Pool, Worker
from tests.faults.producers import Submission, Submitter, acknowledged
from tests.faults.remains import messages_left
from tests.support import eventually

FAULT = "forged headers and properties"
POOLS: dict[str, Pool] = {"default": "default", "high": "prefork", "critical": "threads", "low": "solo"}
"""Each pool meets all of them, in a queue of its own."""
SOME, MANY = 300, 1_500
"""Forged messages of the smaller sizes, for each pool; the seed chooses them."""
SHOWN_MOST = 5
LINKED = ("a", "b")
"""The texts that stand for links in some forged messages."""
PAGE = 500


def play(bench: Bench) -> Outcome:
    """Put all of them between good tasks, in the way of each pool."""
    return play_in_pools(bench, POOLS, _play_queue, parked_seconds=1.0)


def _play_queue(bench: Bench, producer: Submitter, queue: str, worker: Worker) -> list[Submission]:
    messages = list(forged())
    messages = bench.random.sample(messages, min(len(messages), bench.sized(SOME, MANY, len(messages))))
    first = producer.submit("faults.note", 20, queue=queue)
    client = redis.Redis(port=bench.redis.port)
    for start in range(0, len(messages), PAGE):
        client.lpush(queue, *[message.raw for message in messages[start : start + PAGE]])
    last = producer.submit("faults.note", 20, queue=queue)
    good = acknowledged(first + last)
    _await(worker, 60 + len(messages) / 50, lambda: bench.runs.await_ended(good, 0.1))
    bench.judge.require(bench.runs.await_ended(good, 0), f"{queue}: good tasks do not run")
    _await(worker, bench.bound_seconds, lambda: not messages_left(bench.redis.client))
    _await(worker, bench.bound_seconds, lambda: not _unreported(client, messages))
    _judge(bench, queue, messages)
    bench.require_alive(worker)
    return first + last


def _await(worker: Worker, within_seconds: float, condition: Callable[[], bool]) -> None:
    """Return when ``condition`` holds, the time is over, or ``worker`` has ended."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: worker.exited or condition(), within_seconds, every_seconds=0.2)


def _judge(bench: Bench, queue: str, messages: list[Forged]) -> None:
    """Each has a final result if its id can be read and it did not ask for none, or lies among the dead letters."""
    client = redis.Redis(port=bench.redis.port)
    letters = Counter(letter.raw for letter in bench.dead_letters(queue))
    states_of = _states(client, messages)
    unreported = _unreported(client, messages)
    bench.judge.require_none(
        [one.what for one in unreported][:SHOWN_MOST], f"{queue}: no result was stored ({len(unreported)})"
    )
    lost = [one for one in messages if one.id is None and not letters[one.raw]]
    bench.judge.require_none([one.what for one in lost], f"{queue}: without an id, and no dead letter")
    # What could not be read is kept byte for byte; what failed or ran may be, or not. Links may name tasks by texts.
    strangers = letters - Counter(one.raw for one in messages)
    for raw in [raw for raw in strangers if unseal(raw).task in LINKED]:
        del strangers[raw]
    bench.judge.require(
        not strangers, f"{queue}: dead letters that were never sent: {[raw[:300] for raw in strangers]}"
    )
    ended = Counter(states_of.values())
    told = ", ".join(f"{number} {state.lower()}" for state, number in sorted(ended.items()))
    bench.judge.remark(f"{queue}: {len(messages)} forged, {sum(letters.values())} dead letters; results: {told}")


def _unreported(client: redis.Redis, messages: list[Forged]) -> list[Forged]:
    known = _states(client, messages)
    wanted = [one for one in messages if one.id is not None and one.has_result]
    return [one for one in wanted if known.get(str(one.id)) not in states.READY_STATES]


def _states(client: redis.Redis, messages: list[Forged]) -> dict[str, str]:
    ids = [one.id for one in messages if one.id is not None]
    answers = client.mget([f"celery-task-meta-{task_id}" for task_id in ids])
    return {task_id: json.loads(answer)["status"] for task_id, answer in zip(ids, answers, strict=True) if answer}
