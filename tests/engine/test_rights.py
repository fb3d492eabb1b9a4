"""Users of Redis who may not do everything: what a node finds out by other ways, and what it says is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from redis.connection import Connection

from taskapp.engine.node import Node
from taskapp.engine.options import NodeProfile, Options
from taskapp.redis import scripts
from taskapp.redis.link import Link, is_modern
from tests.engine.bench import TASK, Bench, names
from tests.engine.test_resets import Make
from tests.support import RedisServer

LUA = Path(scripts.__file__).parents[1] / "engine" / "lua"
USER, PASSWORD = "narrow", "secret"
RIGHTS = {
    "all": (),
    "no info": ("-info",),
    "nothing dangerous": ("-@dangerous",),
    "neither info nor hello": ("-info", "-hello"),
}


@pytest.fixture
def narrow(each_server: RedisServer) -> Iterator[RedisServer]:
    yield each_server
    each_server.client.acl_deluser(USER)


def connect(server: RedisServer, *rights: str) -> Connection:
    each = [right for right in rights if right]
    server.client.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", "~*", "&*", "+@all", *each)
    return Connection(port=server.port, protocol=2, username=USER, password=PASSWORD)


@pytest.mark.parametrize("rights", RIGHTS)
def test_what_a_server_knows_is_found_out_by_any_user(narrow: RedisServer, rights: str) -> None:
    info = narrow.client.info("server")
    is_old = info["redis_version"].startswith("6.") and "valkey_version" not in info
    connection = connect(narrow, *RIGHTS[rights])
    connection.connect()

    assert is_modern(connection) == (not is_old)
    connection.disconnect()


@pytest.mark.parametrize("rights", RIGHTS)
def test_scripts_run_for_a_user_without_info(narrow: RedisServer, rights: str) -> None:
    link = Link(lambda: connect(narrow, *RIGHTS[rights]))
    assert link.run("push", "", 0, "", 0)
    link.close()


def test_a_refused_lease_is_said_once_with_what_was_refused_and_asked_for_with_growing_pauses(
    bench: Bench, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(lambda: connect(server, "-evalsha"), Options(), NodeProfile())
    node.heartbeat.start = lambda: None
    pauses = []
    for _ in range(4):
        node.retry_at = 0.0
        assert node.ready()
        node.flush(monotonic() + 10)
        pauses.append(node.retry_at - monotonic())
    node.pipe.close()
    server.client.acl_deluser(USER)

    assert pauses[0] < 0.5 < pauses[-1] <= 2.0
    assert caplog.text.count("the broker refuses a lease") == 1
    assert "evalsha" in caplog.text
    assert "silent for longer than its lease" not in caplog.text


MOVING = ("prelude", "claim", "settle", "requeue", "beat", "park", "open", "close", "recover")
COMMANDS = sorted({
    command
    for name in MOVING
    for command in re.findall(r"(?:redis\.p?call|put)\('([A-Z]+)'", (LUA / f"{name}.lua").read_text())
} | {"EVAL", "EVALSHA"})  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_user_without_a_command_loses_no_message(make_bench: Make, server: RedisServer, command: str) -> None:
    bench = make_bench()
    bench.push("a", "b", "c")
    bench.push("d", queue="q2", task="other")
    node = Node(lambda: connect(server, f"-{command}"), bench.options, NodeProfile(types=lambda: {TASK: ""}))
    node.heartbeat.start = lambda: None
    for number in range(3):
        node.retry_at = 0.0
        if node.ready():
            node.claim(("q1", "q2"), 2, lambda _: None)
            node.flush(monotonic() + 5)
            node.give_back(list(node.held), "crashed" if number else "unstarted")
            node.flush(monotonic() + 1)
    node.pipe.close()
    server.client.acl_deluser(USER)

    bench.end_leases(node.epoch)
    other = bench.node(TASK, "other")
    bench.reap()
    assert sorted(names(other.take(want=9))) == ["a", "b", "c", "d"]
