"""Limits as operators see and change them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskapp.engine.limits import Limits, Unique
from tests.engine.bench import Bench
from tests.integration.test_flower_tabs import WITH_LOGIN, ask, block
from tests.support import RedisServer, clean_environment, run_python, start_flower


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
