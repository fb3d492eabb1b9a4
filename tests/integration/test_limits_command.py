"""``taskapp limits``: what it shows, what it changes while nodes run, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from taskapp.engine.limit_numbers import LimitsAdmin
from taskapp.engine.limits import Limits
from taskapp.monitor.task_state import State, task_state
from tests.engine.bench import Bench, names
from tests.integration import blocking
from tests.support import Process, RedisServer, clean_environment, eventually, run_python

RATED, CROWDED = blocking.rated.name, blocking.crowded.name
OF_TENANT = f"{CROWDED}/{{tenant}}"
pytestmark = pytest.mark.usefixtures("app")
Limit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def limit(redis_server: RedisServer, tmp_path: Path) -> Limit:
    """Run ``taskapp limits``."""
    environment = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path), COLUMNS="200",
        TASKAPP_INCLUDE="tests.integration.blocking",
    )  # fmt: skip
    return lambda *arguments: run_python("-m", "taskapp", "limits", *arguments, env=environment)


@pytest.fixture
def start(worker: Callable[..., Process], opened: Path) -> Callable[[], Process]:
    return lambda: worker("-c", "8", TASKAPP_INCLUDE="tests.integration.blocking", OPENED=str(opened))


def rows(limit: Limit) -> dict[str, dict[str, Any]]:
    """Return what ``limits list --json`` says by limit and kind."""
    found = [json.loads(line) for line in limit("list", "--json").stdout.splitlines()]
    return {f"{row['limit']} {row['kind']}": row for row in found if "limit" in row and "kind" in row}


def is_blocked(result: Any) -> bool:
    return task_state(result.id).state is State.BLOCKED


def test_a_rate_is_shown_changed_for_what_waits_and_cleared(start: Any, limit: Limit) -> None:
    start()
    blocking.rated.delay("acme").get(timeout=30)
    waiting = [blocking.rated.delay("acme") for _ in range(3)]
    eventually(lambda: all(map(is_blocked, waiting)))
    code = {"limit": 1, "period_ms": 3_600_000, "burst": 1}
    row = {"limit": RATED, "kind": "rate", "code": code, "set": {}, "blocked": 3, "from": "code"}

    assert rows(limit)[f"{RATED} rate"] == row
    assert limit("set", RATED, "--rate", "1000/s").stdout == f"{RATED}: rate 1,000/s\n"
    for each in waiting:
        each.get(timeout=30)
    row |= {"set": {"limit": 1_000, "period_ms": 1_000, "burst": 100}, "blocked": 0, "from": "set"}
    assert rows(limit)[f"{RATED} rate"] == row
    assert limit("set", RATED, "--burst", "7").stdout == f"{RATED}: rate 1,000/s, burst 7\n"
    listed = [line.split() for line in limit("list").stdout.splitlines()]
    assert [RATED, "rate", "1/h", "1,000/s,", "burst", "7", "0", "set"] in listed
    assert limit("clear", RATED).stdout == f"{RATED}: rate 1/h, as its code says\n"
    assert rows(limit)[f"{RATED} rate"]["set"] == {}


def test_numbers_that_are_set_outlive_nodes_and_redis_until_they_are_cleared(
    start: Any, limit: Limit, opened: Path, redis_server: RedisServer
) -> None:
    node = start()
    assert limit("set", CROWDED, "--at-once", "1").stdout == f"{CROWDED}: at once 1\n"
    assert limit("set", OF_TENANT, "--at-once", "none").stdout == f"{OF_TENANT}: at once none\n"
    node.kill()
    redis_server.kill()
    redis_server.start()
    start()

    first = blocking.crowded.delay("a")
    eventually(lambda: task_state(first.id).state is State.RUNNING)
    second = blocking.crowded.delay("a")
    eventually(lambda: is_blocked(second))
    found = rows(limit)
    of_all, of_tenant = found[f"{CROWDED} at once"], found[f"{OF_TENANT} at once"]
    assert (of_all["code"], of_all["set"], of_all["blocked"]) == ({"most": 2}, {"most": 1}, 1)
    assert (of_tenant["code"], of_tenant["from"], of_tenant["blocked"]) == ({"most": 1}, "set", 0)
    assert limit("clear", CROWDED).stdout == f"{CROWDED}: at once 2, as its code says\n"
    eventually(lambda: task_state(second.id).state is State.RUNNING)
    opened.touch()
    second.get(timeout=30)


def test_a_key_of_a_rate_is_paused_and_resumed(start: Any, limit: Limit) -> None:
    start()
    said = limit("pause", RATED, "600", "--key", "acme")
    paused, other = blocking.rated.delay("acme"), blocking.rated.delay("other")

    assert said.stdout == f"{RATED} for the key 'acme': none starts for 600 s\n"
    other.get(timeout=30)
    eventually(lambda: is_blocked(paused))
    assert limit("pause", RATED, "0", "--key", "acme").stdout == f"{RATED} for the key 'acme': not paused\n"
    paused.get(timeout=30)


def test_a_key_of_masked_arguments_is_paused_by_its_value(start: Any, limit: Limit) -> None:
    start()
    said = limit("pause", blocking.charge.name, "600", "--key", "4711").stdout
    paused, other = blocking.charge.delay("4711"), blocking.charge.delay("4712")

    assert said == f"{blocking.charge.name} for the key '4711': none starts for 600 s\n"
    other.get(timeout=30)
    eventually(lambda: is_blocked(paused))
    assert "4711" not in str(task_state(paused.id))


def test_a_pause_of_a_type_whose_code_is_elsewhere_says_what_it_cannot_check(app: Celery, limit: Limit) -> None:
    with app.engine() as engine:
        LimitsAdmin(engine.link, engine.prefix)._link.run("limit", engine.prefix, 0, "declared", "x", '{"limit":1}')

    assert (
        "the code of 'x' is not loaded here (TASKAPP_INCLUDE, -A): if it has a rate_key"
        in limit("pause", "x", "5").stderr
    )
    assert limit("pause", "x", "5", "--key", "a").stderr == ""


def test_weights_are_set_shown_and_cleared(redis_server: RedisServer, limit: Limit) -> None:
    bench = Bench(redis_server)
    for tenant in "ab":
        bench.submit(*(f"{tenant}{number}" for number in range(20)), limits=Limits(tenant))

    said = limit("set", "--weight", "a=3", "--weight", "x=y=0.5").stdout
    assert said == "fair key 'a': weight 3\nfair key 'x=y': weight 0.5\n"
    listed = [json.loads(line) for line in limit("list", "--json").stdout.splitlines()]
    assert listed == [
        {"fair_key": "a", "weight": 3.0, "from": "set"}, {"fair_key": "x=y", "weight": 0.5, "from": "set"},
    ]  # fmt: skip
    assert [name[0] for name in names(bench.node().take(8))].count("a") == 6
    assert limit("clear", "--weight", "x=y").stdout == "fair key 'x=y': weight 1\n"
    assert "fair key  weight  from\na         3       set\n" in limit("list").stdout
    bench.close()


def test_a_type_that_no_node_has_declared_yet_is_known_from_the_code(app: Celery, limit: Limit) -> None:
    assert limit("list").stdout.startswith(
        "no limits; task types declare them when a node starts, or: taskapp limits set"
    )

    assert limit("set", RATED, "--rate", "5/m").stdout == f"{RATED}: rate 5/m\n"

    with app.engine() as engine:
        found = LimitsAdmin(engine.link, engine.prefix).read_limits()
    assert found[RATED].set == {"limit": 5, "period_ms": 60_000, "burst": 1}
    assert limit("set", RATED, "--rate", "none").stdout == f"{RATED}: rate none\n"


REFUSED = {
    ("set",): "give QUEUE NUMBER, TYPE with --rate, --burst or --at-once, or --weight KEY=NUMBER",
    ("set", "default"): "give QUEUE NUMBER",
    ("set", "default", "5", "--rate", "1/s"): "give QUEUE NUMBER",
    ("set", "defualt", "5"): "no queue named 'defualt'; did you mean 'default'?",
    ("set", f"{RATED}x", "--rate", "1/s"): f"no limit of tasks is named '{RATED}x'; did you mean '{RATED}'?",
    ("set", RATED, "--at-once", "1"): f"'{RATED}' declares no max_concurrency for all nodes, so that nothing would",
    ("set", CROWDED, "--rate", "1/s"): f"'{CROWDED}' declares no rate_limit for all nodes, so that nothing would",
    ("set", RATED, "--rate", "5/x"): "'5/x': 'x' is not a unit of time; use s, m or h, as in '100/m'",
    ("set", RATED, "--rate", "0"): "'0': it must be above zero; use none for no limit",
    ("set", RATED, "--rate", ""): "'': use a rate such as 100/m, or none",
    ("set", RATED, "--burst", "0"): "0.0 is not in the range x>=1",
    ("set", CROWDED, "--at-once", "0"): "'0': use a number of tasks from 1 to 1,000,000, or none",
    ("set", CROWDED, "--at-once", "1.5"): "'1.5': use a number of tasks from 1 to 1,000,000, or none",
    ("set", "--weight", "acme"): "'acme': give KEY=NUMBER with a number above 0, as in acme=2",
    ("set", "--weight", "acme=0"): "give KEY=NUMBER with a number above 0",
    ("set", "--weight", "acme=nan"): "give KEY=NUMBER with a number above 0",
    ("set", "--weight", "x" * 257 + "=1"): "the key has 257 bytes, more than 256",
    ("set", "default", "--weight", "a=1"): "give QUEUE NUMBER",
    ("clear",): "give QUEUE, TYPE or --weight KEY",
    ("clear", RATED): f"no limit is set for '{RATED}'; see taskapp limits list",
    ("clear", "--weight", "acme"): "no limit is set for the fair key 'acme'; see taskapp limits list",
    ("pause", RATED, "5"): f"the rate of '{RATED}' counts for each {{tenant}}; give one",
    ("pause", blocking.hourly.name, "5", "--key", "a"): "counts all keys together; leave it out",
    ("pause", CROWDED, "5"): f"'{CROWDED}' declares no rate_limit for all nodes",
    ("pause", RATED, "1e9"): "1000000000.0 is not in the range 0<=x<=2592000",
    ("pause", "shop.nosuch", "5"): "no limit of tasks is named 'shop.nosuch'; declare it with the task type",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_makes_no_sense_is_refused(limit: Limit, app: Celery, arguments: tuple[str, ...]) -> None:
    with app.engine() as engine:
        LimitsAdmin(engine.link, engine.prefix)._link.run("limit", engine.prefix, 0, "declared", "x", '{"limit":1}')

    done = limit(*arguments)

    assert REFUSED[arguments] in done.stderr
    assert done.returncode in (1, 2)
    with app.engine() as engine:
        admin = LimitsAdmin(engine.link, engine.prefix)
        assert (admin.read_limits()["x"].set, admin.read_weights(), len(admin.read_limits())) == ({}, {}, 1)


def test_a_limit_of_tasks_is_no_queue(limit: Limit) -> None:
    limit("set", RATED, "--rate", "5/m")

    assert f"'{RATED}' is a limit of tasks and no queue; use --rate" in limit("set", RATED, "5").stderr
    assert f"no limit is set for '{RATED}x'; did you mean '{RATED}'?" in limit("clear", f"{RATED}x").stderr
