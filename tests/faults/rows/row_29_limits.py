"""Nodes are killed over and over while all limits are on: none is exceeded, and nothing of them is left behind."""

from __future__ import annotations

from taskapp.engine.limit_numbers import LimitsAdmin
from tests.faults.harness import Bench
from tests.faults.limit_client import Plan
from tests.faults.limit_history import History, await_none_left
from tests.faults.limit_promises import claims_in_turn, exceeded, judge, most_off
from tests.faults.limit_storm import Storm
from tests.faults.limit_tasks import RATE_PER_SECOND
from tests.faults.outcome import Outcome

FAULT = "kill nodes with limits on"
LEASE_SECONDS = 3.0
"""In all sizes: with kills every two seconds, nodes that died longer ago would hold most slots."""
NODES, CONCURRENCY, GAP_SECONDS, KILLS_FOR_A_CLIENT = 4, 4, 2.0, 5
WEIGHTS = {"wa": 1, "wb": 2, "wc": 3, "wd": 4}
OFF_MOST = 0.03
UNIQUE = ("until_end", "until_start", "for_a_time", "refused", "replaced", "latest", "debounced")
COUNTED = ("counted", "two_levels", "dropped", "cancelled")
RATED_KEYS = ["a", "b"]
SECONDS = 0.25
"""How long most tasks take: so that many meet another one of their key."""


def play(bench: Bench) -> Outcome:
    """Fill the queue with what takes turns, and kill nodes and clients while tasks with other limits come."""
    bench.lease_seconds = LEASE_SECONDS
    kills, claims = bench.sized(5, 20, 1_000), bench.sized(400, 2_000, 20_000)
    seed = bench.random.getrandbits(30)
    clients = [
        Plan("cu", dict.fromkeys(UNIQUE, SECONDS), [*"ab"], 10, seed, priorities=[5]),
        Plan("cs", dict.fromkeys(COUNTED, SECONDS), [*"abcd"], 12, seed, priorities=[5]),
        Plan("cr", {"rated": 0.01}, RATED_KEYS, len(RATED_KEYS) * RATE_PER_SECOND, seed, priorities=[5]),
    ]
    storm = Storm(bench, clients, NODES, CONCURRENCY)
    _fill(bench, storm, round(claims * 1.3), bench.sized(0.05, 0.12, 0.5))
    storm.start()
    storm.rage(kills, GAP_SECONDS, KILLS_FOR_A_CLIENT)
    history = storm.calm(bench.patience_seconds + kills)
    excused = judge(history)
    _judge_turns(bench, history, claims)
    return _outcome(bench, history, excused)


def _fill(bench: Bench, storm: Storm, number: int, seconds: float) -> None:
    with bench.redis.link() as link:
        for key, weight in WEIGHTS.items():
            LimitsAdmin(link, "").set_weight(key, weight)
    keys = [key for key, weight in WEIGHTS.items() for _ in range(weight)]
    loader = storm.start_client(Plan("cf", {"fair": seconds}, keys, 1_000_000, bench.random.getrandbits(30), number))
    assert loader.wait(120) == 0, loader.output()[-600:]
    storm.clients.clear()


def _judge_turns(bench: Bench, history: History, most: int) -> None:
    claims = claims_in_turn(history)[:most]
    bench.judge.require(len(claims) == most, f"{len(claims)} claims while all keys waited, not {most}")
    if claims:
        # A turn more or less is no fault.
        off = most_off(claims, WEIGHTS)
        allowed = max(OFF_MOST, 2 * sum(WEIGHTS.values()) / len(claims))
        bench.judge.require(off <= allowed, f"a part of {len(claims)} claims is {off:.1%} off its weight")
        bench.judge.remark(f"weights held within {off:.2%} over {len(claims)} claims")


def _outcome(bench: Bench, history: History, excused: set[str]) -> Outcome:
    known, runs = history.acknowledged, bench.runs
    ended = runs.ended(known)
    bench.judge.require_none(known - ended - excused, "acknowledged and lost")
    left = await_none_left(bench.redis.client, 2 * LEASE_SECONDS)
    bench.judge.require_none(left, "keys of limits are left")
    bench.judge.remark(
        f"{len(history.deaths)} kills, {len(history.leases or ())} claims, {runs.extra_runs(runs.by_id)} runs again, "
        f"{len(excused)} dropped or cancelled; {len(exceeded(history))} limits exceeded, {len(left)} keys left, "
        f"{len(history.unwell)} nodes lost a lease while they lived"
    )
    return Outcome(
        sent=len(history.calls), acknowledged=len(known), ran=len(ended), ran_twice=len(runs.repeated(runs.by_id)),
        lost=len(known - ended - excused), passed=not bench.judge.problems, notes=bench.judge.notes,
    )  # fmt: skip
