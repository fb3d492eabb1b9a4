"""Circuit breakers with real nodes on a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskapp.engine.circuits import Circuit, Circuits
from taskapp.monitor.task_state import State, task_state
from tests.integration import breaking
from tests.support import Process, RedisServer, clean_environment, eventually, run_python

pytestmark = pytest.mark.usefixtures("app")
StartWorker = Callable[..., Process]
MODULE = "tests.integration.breaking"


@pytest.fixture
def node(worker: StartWorker) -> Callable[..., Process]:
    return lambda name="one", *options: worker("-c", "4", *options, name=name, TASKAPP_INCLUDE=MODULE)


def circuits(app: Any) -> list[Circuit]:
    with app.engine() as engine:
        return Circuits(engine.link, engine.prefix).read()


def command(server: RedisServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "taskapp", *arguments, env=clean_environment(TASKAPP_BROKER_URL=server.url))


def runs(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_type_whose_runs_fail_is_started_no_more_on_any_node(
    app: Any, node: Any, tmp_path: Path, redis_server: RedisServer
) -> None:
    node("one")
    node("two")
    types = (breaking.call, breaking.call_in_a_coroutine, breaking.call_in_a_child, breaking.call_and_retry)
    for task in types:
        path = tmp_path / f"fails-{task.name}"
        for _ in range(3):
            task.delay(str(path))
        assert eventually(lambda task=task: task.name in {circuit.task for circuit in circuits(app)}), task.name
        before = runs(path)
        held = task.delay(str(tmp_path / "well"))

        # A task behind it runs, so nodes have looked.
        assert breaking.limited.delay("a", False).get(timeout=30) == "a"
        assert eventually(lambda held=held: task_state(held.id).state is State.BLOCKED)
        assert task_state(held.id).remark == f"the circuit of {task.name} is open"
        # Those that ran when it opened have ended: a few at most.
        assert eventually(lambda path=path, before=before: runs(path) <= before + 4)
    assert not (tmp_path / "well").exists()

    listed = [json.loads(line) for line in command(redis_server, "circuits", "list", "--json").stdout.splitlines()]
    assert {(one["task"], one["state"], one["kind"]) for one in listed} == {
        (task.name, "open", "ConnectionError") for task in types
    }
    done = command(redis_server, "circuits", "close", breaking.call.name)
    assert done.stdout == f"{breaking.call.name}: closed; its tasks start again\n"
    assert eventually(lambda: runs(tmp_path / "well") == 1)


def test_errors_that_do_not_count_open_nothing(app: Any, node: Any, tmp_path: Path) -> None:
    node()
    results = [breaking.call.delay(str(tmp_path / what)) for what in ("permanent", "value") for _ in range(8)]

    for result in results:
        assert isinstance(result.get(timeout=30, propagate=False), Exception)
    assert circuits(app) == []


def test_runs_that_are_killed_count(app: Any, node: Any, tmp_path: Path) -> None:
    node()
    for _ in range(2):
        breaking.hangs.delay(str(tmp_path / "hangs"))

    assert eventually(lambda: [circuit.task for circuit in circuits(app)] == [breaking.hangs.name])


def test_it_outlives_nodes_and_closes_when_a_probe_succeeds(app: Any, node: Any, tmp_path: Path) -> None:
    first = node("one")
    path, mended = tmp_path / "runs", tmp_path / "mended"
    results = [breaking.recovers.delay(str(path), str(mended)) for _ in range(2)]
    for result in results:
        assert isinstance(result.get(timeout=30, propagate=False), ConnectionError)
    waiting = [breaking.recovers.delay(str(path), str(mended)) for _ in range(40)]
    first.kill()
    node("two")
    assert eventually(lambda: circuits(app)[0].times >= 3)
    (circuit,) = circuits(app)
    # One probe each time it was half-open; none beside it.
    assert runs(path) <= 2 + circuit.times

    mended.touch()
    ended = [result.get(timeout=60, propagate=False) for result in waiting]
    assert ended.count("done") >= 30
    assert eventually(lambda: circuits(app) == [])


def test_it_goes_together_with_other_limits(app: Any, node: Any) -> None:
    node()
    failing = [breaking.limited.delay("a", True) for _ in range(2)]
    for result in failing:
        assert isinstance(result.get(timeout=30, propagate=False), ConnectionError)
    results = [breaking.limited.delay(tenant, False) for tenant in "abcd" for _ in range(10)]

    assert [result.get(timeout=60) for result in results] == [tenant for tenant in "abcd" for _ in range(10)]
    assert circuits(app) == []


def test_the_command_says_what_is_closed(redis_server: RedisServer) -> None:
    assert command(redis_server, "circuits", "list").stdout.endswith("all circuits are closed\n")
    done = command(redis_server, "circuits", "close", "shop.none")
    assert done.returncode == 1
    assert done.stderr == "Error: the circuit of 'shop.none' is not open; see taskapp circuits list\n"
