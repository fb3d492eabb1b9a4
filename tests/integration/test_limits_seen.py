"""Limits as operators see and change them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from taskapp.engine.circuits import OF_CIRCUITS, gates_of
from taskapp.engine.limit_numbers import LANES_MOST, LimitsAdmin
from taskapp.engine.limits import Concurrency, Limits, Rate, Unique
from taskapp.engine.queue_limits import QueueLimits
from taskapp.engine.settlement import CircuitRun, Settlement
from taskapp.errors import NotStarted
from taskapp.errors.publishing import QueueFull
from taskapp.monitor.task_state import State, TaskState, WaitsFor, task_state
from tests.engine.bench import Bench
from tests.integration import blocking, shop
from tests.integration.test_exporter import Exporter
from tests.integration.test_flower_tabs import WITH_LOGIN, Answer, ask, block, cards
from tests.support import Process, RedisServer, clean_environment, eventually, run_python, start_flower


@pytest.fixture
def bench(redis_server: RedisServer) -> Iterator[Bench]:
    made = Bench(redis_server)
    yield made
    made.close()


@pytest.fixture
def environment(redis_server: RedisServer, tmp_path: Path) -> dict[str, str]:
    return clean_environment(TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path), COLUMNS="200")


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory, session_server: RedisServer) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("flower")
    process, address = start_flower(directory, WITH_LOGIN, TASKAPP_BROKER_URL=session_server.url)
    yield address
    process.close()


# --- dead letters whose unique key is taken ----------------------------------------------------------


def of_order(key: str) -> Limits:
    return Limits(unique=Unique(f"shop.mail\x1f{key}", on_duplicate="raise"))


@pytest.fixture
def letters(bench: Bench) -> Bench:
    """Four dead letters; other tasks have the keys of 1 and 3 by now."""
    node = bench.node("shop.mail")
    for key in "1234":
        bench.submit(key, limits=of_order(key), queue="default")
        node.bury(node.take(1, ["default"])[0].tag, "failed", "why")
    node.done()
    bench.submit("b", limits=of_order("1"), queue="default")
    bench.submit("c", limits=of_order("3"), queue="default")
    return bench


def test_the_command_replays_the_letters_whose_key_is_free_and_tells_of_the_others(
    letters: Bench, environment: dict[str, str]
) -> None:
    done = run_python("-m", "taskapp", "dead", "replay", "--all", env=environment)

    assert done.stdout == "sent 2 dead letters again\n"
    assert done.stderr.splitlines() == [
        "default/3 stays dead: the task c has its unique key; replay it when that has ended",
        "default/1 stays dead: the task b has its unique key; replay it when that has ended",
        "Error: 2 dead letters stay: other tasks have their unique keys",
    ]
    assert done.returncode == 1
    assert letters.dead.count() == {("default", "failed"): 2}
    done = run_python("-m", "taskapp", "dead", "replay", "default/1", env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: default/1 stays dead: the task b has its unique key; replay it when that has ended\n"


def test_flower_replays_the_letters_whose_key_is_free_and_tells_of_the_others(letters: Bench, flower: str) -> None:
    act = f"{flower}/dead-letters/actions/replay"
    why = "default/1 stays dead: the task b has its unique key; replay it when that has ended"

    named = ask(act, body={"keys": ["default/1", "default/2", "default/9"]}).json
    fits = ask(act, body={"fits": {}, "at": letters.now_ms() / 1_000 + 1, "cursor": ""}).json

    assert (named["count"], named["problems"]) == (1, ["1 no longer existed", why])
    assert (fits["count"], fits["cursor"]) == (1, "")
    assert fits["problems"] == [why, why.replace("/1", "/3").replace("task b", "task c")]
    shown = ask(f"{flower}/dead-letters/data")
    assert [row["name"] for row in block(shown, "table")["rows"]] == ["default/3", "default/1"]


# --- one task ---------------------------------------------------------------------------------------


@pytest.fixture
def node(worker: Callable[..., Process], app: Celery, opened: Path) -> Process:
    return worker("-c", "8", TASKAPP_INCLUDE="tests.integration.blocking", OPENED=str(opened))


def blocked(task_id: str) -> TaskState:
    eventually(lambda: task_state(task_id).state is State.BLOCKED or None)
    return task_state(task_id)


def shown(task_id: str, environment: dict[str, str], *more: str) -> str:
    return run_python("-m", "taskapp", "task", "show", task_id, *more, env=environment).stdout


def test_a_task_blocked_by_a_rate_says_which_and_until_when(node: Process, environment: dict[str, str]) -> None:
    blocking.rated.delay("acme").get(timeout=30)
    result = blocking.rated.delay("acme")

    state = blocked(result.id)

    name = blocking.rated.name
    assert state.waits_for == WaitsFor("rate", name, "acme")
    assert state.next_at is not None
    assert state.next_at - time.time() == pytest.approx(3_600, abs=60)
    assert json.loads(shown(result.id, environment, "--json"))["waits_for"] == {
        "kind": "rate", "limit": name, "key": "acme", "running": [],
    }  # fmt: skip
    text = shown(result.id, environment)
    assert "state      blocked, next at 20" in text
    assert f"remark     the rate of {name} for the key 'acme' is used up, or paused" in text


def test_a_task_blocked_by_a_slot_says_behind_which_tasks(
    node: Process, environment: dict[str, str], opened: Path
) -> None:
    name = blocking.crowded.name
    first, other = blocking.crowded.delay("acme"), blocking.crowded.delay("other")
    eventually(lambda: task_state(other.id).state is State.RUNNING and task_state(first.id).state is State.RUNNING)
    of_tenant, of_all = blocking.crowded.delay("acme"), blocking.crowded.delay("third")

    assert blocked(of_tenant.id).waits_for == WaitsFor("slots", f"{name}/{{tenant}}", "acme", (first.id,))
    assert blocked(of_all.id).waits_for == WaitsFor("slots", name, "", tuple(sorted((first.id, other.id))))
    assert blocked(of_all.id).next_at is None
    text = shown(of_tenant.id, environment)
    assert f"remark     as many of {name}/{{tenant}} run for the key 'acme' as may run at once: {first.id}\n" in text
    opened.touch()
    for each in (first, other, of_tenant, of_all):
        each.get(timeout=30)


def test_a_task_blocked_by_a_unique_key_says_behind_which_task(node: Process, environment: dict[str, str]) -> None:
    first = blocking.index.delay("report")
    eventually(lambda: task_state(first.id).state is State.RUNNING)
    latest = blocking.index.delay("report")

    assert blocked(latest.id).waits_for == WaitsFor("unique", blocking.index.name, "report", (first.id,))
    assert f"one of {blocking.index.name} runs with the same unique key 'report': {first.id}" in shown(
        latest.id, environment
    )


# --- all of them, in Flower --------------------------------------------------------------------------

HOSTILE = "</td><script>alert(1)</script>\x1b[2J\u202e"


def block_of(answer: Answer, title: str) -> dict[str, Any]:
    return next(each for each in answer.json["blocks"] if each.get("title", "").startswith(title))


def test_flower_shows_limits_and_the_keys_for_which_most_wait(bench: Bench, flower: str) -> None:
    node, rate = bench.node("shop.mail"), Rate("shop.mail", "", 1, 3_600_000, 1)
    bench.link.run(
        "limit", "", 0, "declared", "shop.mail", json.dumps({"limit": 1, "period_ms": 3_600_000, "burst": 1})
    )
    bench.link.run("limit", "", 0, "declared", "shop.all/{tenant}", json.dumps({"most": 1}))
    LimitsAdmin(bench.link, "").set_limit("shop.all/{tenant}", {"most": 2})
    for number in range(30):
        limits = Limits(rates=(rate._replace(key=f"tenant {number}"),))
        bench.submit(*(f"{number} {each}" for each in range(2 + number)), limits=limits, queue="default")
    slots = Limits(slots=(Concurrency("shop.all/{tenant}", HOSTILE, 1),))
    bench.submit(*(f"slots {number}" for number in range(100)), limits=slots, queue="low")
    for queue in ("default", "low"):
        while node.take(100, [queue]):
            pass
    eventually(lambda: cards(ask(f"{flower}/queues/data"))["blocked"] == sum(range(1, 31)) + 98)

    shown = ask(f"{flower}/queues/data")

    keys = block_of(shown, "Blocked")["rows"]
    assert len(keys) == 20
    assert keys[0] == {
        "limit": "shop.all/{tenant}", "key": HOSTILE, "number": 98, "why": "2 run, as many as may", "opens_at": None,
    }  # fmt: skip
    assert (keys[1]["key"], keys[1]["number"], keys[1]["why"]) == ("tenant 29", 30, "rate 1/h used up, or paused")
    assert keys[1]["opens_at"] - time.time() == pytest.approx(3_600, abs=60)
    assert block_of(shown, "Limits of tasks")["rows"] == [
        {"name": "shop.all/{tenant}", "kind": "at once", "code": "1", "set": "2", "blocked": 98, "origin": "set"},
        {"name": "shop.mail", "kind": "rate", "code": "1/h", "set": "", "blocked": 465, "origin": "code"},
    ]
    by_queue = {row["name"]: row["blocked"] for row in block_of(shown, "Queues")["rows"]}
    assert (by_queue["default"], by_queue["low"], by_queue["high"]) == (465, 98, 0)
    assert "<script>" not in ask(f"{flower}/queues").body


def test_flower_shows_circuits_that_are_open(bench: Bench, flower: str) -> None:
    node, (gate, slot) = bench.node("shop.mail"), gates_of("shop.mail")
    bench.submit(*map(str, range(9)), limits=Limits(rates=(gate,), slots=(slot,)), queue="default")
    for message in node.take(3, ["default"]):
        settlement = Settlement()
        settlement.circuit = CircuitRun("shop.mail", "ConnectionError", 3, 0, 30_000)
        node.settle(message.tag, settlement)
        node.done()
    node.take(9, ["default"])

    shown = ask(f"{flower}/queues/data")

    [circuit] = block_of(shown, "Circuits")["rows"]
    assert (circuit["task"], circuit["state"], circuit["kind"]) == ("shop.mail", "open", "ConnectionError")
    [key] = block_of(shown, "Blocked")["rows"]
    assert (key["limit"], key["number"], key["why"]) == (f"{OF_CIRCUITS}shop.mail", 6, "its circuit is open")
    assert [row["kind"] for row in block_of(shown, "Limits of tasks")["rows"]] == ["circuit"]


def test_flower_reads_a_bounded_number_of_lanes(bench: Bench) -> None:
    node, rate = bench.node("shop.mail"), Rate("shop.mail", "", 1, 3_600_000, 1)
    for number in range(LANES_MOST + 500):
        limits = Limits(rates=(rate._replace(key=f"tenant {number}"),))
        bench.submit(f"{number} a", f"{number} b", limits=limits, queue="default")
    while node.take(100, ["default"]):
        pass
    admin = LimitsAdmin(bench.link, "")
    bench.client.config_resetstat()

    keys, are_all = admin.most_blocked(["default"], 20)

    assert (len(keys), are_all) == (20, False)
    calls = sum(int(each["calls"]) for each in bench.client.info("commandstats").values())
    assert calls < 3 * LANES_MOST


# --- metrics ----------------------------------------------------------------------------------------


def test_the_exporter_tells_of_blocked_tasks_duplicates_dropped_ones_and_full_queues(
    app: Celery, node: Process, redis_server: RedisServer, tmp_path: Path, opened: Path
) -> None:
    first, same = blocking.index.delay("report"), blocking.only.delay()
    eventually(lambda: all(task_state(each.id).state is State.RUNNING for each in (first, same)))
    waiting = [blocking.index.delay("report") for _ in range(3)]
    dropped = blocking.only.delay()
    with pytest.raises(NotStarted):
        dropped.get(timeout=30)
    blocked(waiting[0].id)
    with app.engine() as engine:
        QueueLimits(engine.link, engine.prefix).set("low", 1)
    blocking.rated.apply_async(("acme",), queue="low", countdown=60)
    for task, args in ((blocking.rated, ("b",)), (shop.greet, ("you",))):
        with pytest.raises(QueueFull):
            task.apply_async(args, queue="low")
    exporter = Exporter(tmp_path, redis_server.url)
    try:
        of_index = {"type": blocking.index.name, "queue": "default"}
        eventually(lambda: exporter.value("taskapp_tasks_duplicate_total", **of_index) == 2)
        of_only = {"type": blocking.only.name, "queue": "default"}
        assert exporter.value("taskapp_tasks_dropped_total", **of_only) == 1
        assert exporter.value("taskapp_queue_full_total", queue="low") == 2
        assert exporter.value("taskapp_queue_full_total", queue="high") == 0
        assert exporter.value("taskapp_queue_blocked", queue="default") == 1
        assert exporter.value("taskapp_limit_blocked", limit=blocking.index.name, kind="unique") == 1
        assert exporter.value("taskapp_limit_blocked", limit=blocking.rated.name, kind="rate") == 0
    finally:
        exporter.close()
