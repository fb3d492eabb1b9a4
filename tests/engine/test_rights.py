"""Users of Redis who may not do everything: what a node finds out by other ways, and what it says is missing."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import pytest
from redis.connection import Connection

from taskapp.engine.node import Node
from taskapp.engine.options import NodeProfile, Options
from taskapp.redis.link import Link, is_modern
from tests.engine.bench import Bench
from tests.support import RedisServer

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
