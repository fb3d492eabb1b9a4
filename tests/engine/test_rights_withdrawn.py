"""A permission of the Redis user is withdrawn while nodes run, then granted again: every message is there once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic

import pytest
from redis.connection import Connection
from redis.exceptions import ResponseError

from taskapp.engine.envelope import seal, unseal
from taskapp.engine.producer import Message
from taskapp.engine.settlement import Chord, ChordPart, Result
from tests.engine.bench import PATIENCE_SECONDS, TASK, Bench, leaving, names
from tests.engine.test_resets import Make
from tests.engine.test_rights import COMMANDS, PASSWORD, USER, connect
from tests.support import RedisServer, eventually

Stage = Callable[["Site"], None]
NAMES = ("a", "b", "c", "d", "e")


class Site:
    """A node whose user may lose a permission, and one whose user may do everything."""

    def __init__(self, bench: Bench, server: RedisServer, command: str) -> None:
        self.bench, self.server, self.command = bench, server, command
        connect(server)
        everything, bench.connect = bench.connect, self._connect  # type: ignore[method-assign]
        self.node = bench.node(TASK, name="narrow")
        bench.connect = everything  # type: ignore[method-assign]

    def _connect(self) -> Connection:
        return Connection(
            port=self.server.port, protocol=2, username=USER, password=PASSWORD, socket_timeout=PATIENCE_SECONDS
        )

    def withdraw(self) -> None:
        self.server.client.execute_command("ACL", "SETUSER", USER, f"-{self.command}")

    def grant(self) -> None:
        self.server.client.execute_command("ACL", "SETUSER", USER, f"+{self.command}")

    def turn(self, want: int = 3) -> None:
        """Do what a loop does in each turn, without pauses."""
        node = self.node
        node.retry_at = node.ends._again_at = 0.0
        if node.is_ready() and want:
            node.claim(("q1", "q2"), want, lambda _: None)
        node.ends.flush()
        node.flush(monotonic() + PATIENCE_SECONDS)


def claim(site: Site) -> None:
    site.withdraw()
    for _ in range(3):
        site.turn()


def pass_over(site: Site) -> None:
    """Claim although there is no room for the first messages, and no node for others."""
    site.bench.push("other", task="shop.other")
    site.node._missing_types = ("shop.other",)
    claim(site)


def give_back(site: Site) -> None:
    site.turn()
    assert len(site.node.held) == 3
    site.withdraw()
    for kind, tag in zip(("unstarted", "crashed", "retry"), tuple(site.node.held), strict=True):
        site.node.give_back([tag], kind)
    for _ in range(3):
        site.turn(0)


def delay(site: Site) -> None:
    site.turn()
    site.withdraw()
    site.node.give_back(tuple(site.node.held), "retry", 3_600.0)
    for _ in range(3):
        site.turn(0)


def park(site: Site) -> None:
    site.turn()
    site.withdraw()
    for tag in tuple(site.node.held):
        site.node.park(tag, "shop.other")
    for _ in range(3):
        site.turn(0)


def close(site: Site) -> None:
    site.turn()
    site.withdraw()
    with suppress(ResponseError):  # its lease ends
        site.node.close(within_seconds=0.3)


def _beat(site: Site) -> None:
    for _ in range(3):
        with suppress(ResponseError):  # its thread goes on
            site.node.heartbeat.beat()


def reap(site: Site) -> None:
    dead = site.bench.node(TASK)
    assert len(dead.take(want=9)) == 5
    site.bench.end_leases(dead.epoch)
    site.withdraw()
    _beat(site)


def expire_parked(site: Site) -> None:
    """Parked messages become dead letters."""
    site.turn()
    for tag in tuple(site.node.held):
        site.node.park(tag, "shop.other")
    site.turn(0)
    site.bench.client.hset(site.bench.keys("parked", "q1"), "shop.other", 1)
    site.withdraw()
    _beat(site)


def settle(site: Site) -> None:
    site.turn()
    held = tuple(site.node.held)
    assert len(held) == 3
    site.withdraw()
    for number, tag in enumerate(held):
        left = leaving(
            Result(f"result{number}", b"{}", 60),
            *(Message("q1", 0, due, name, seal(name, TASK, 0, name.encode()))
              for name, due in ((f"next{number}", 0), (f"late{number}", 1))),
        )  # fmt: skip
        if number == 0:
            left.chords.append(Chord("chord", 1, b"", seal("finish", TASK, 0, b"finish"), 60))
            left.parts.append(ChordPart("chord", "0", 1, b"1", 60))
        site.node.settle(tag, left)
    for _ in range(4):
        site.turn(0)


def bury(site: Site) -> None:
    site.turn()
    site.withdraw()
    for tag in tuple(site.node.held):
        site.node.bury(tag, "failed", "by a test")
    for _ in range(4):
        site.turn(0)


STAGES = (claim, pass_over, give_back, delay, park, close, reap, expire_parked, settle, bury)
SETTLED = ("next0", "late0", "next1", "late1", "next2", "late2", "finish")


@pytest.mark.quick("H*-*", "RPUSH-*", "LPUSH-*", "ZADD-*", "*-claim", "*-settle")
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
@pytest.mark.parametrize("command", [each for each in COMMANDS if each not in ("EVAL", "EVALSHA")])
def test_no_message_is_lost_or_doubled(make_bench: Make, server: RedisServer, command: str, stage: Stage) -> None:
    bench = make_bench()
    bench.push(*NAMES[:3])
    bench.push(*NAMES[3:], due_ms=1)
    site = Site(bench, server, command)
    try:
        stage(site)
    finally:
        site.grant()
    for _ in range(4):
        site.turn(0)

    site.node.die()
    if leases := bench.client.zrange(bench.keys("leases"), 0, -1):
        bench.end_leases(*leases)
    server.client.acl_deluser(USER)
    assert _all(bench) == Counter(_expected(stage))


def _expected(stage: Stage) -> Iterator[str]:
    yield from NAMES[3:] if stage is settle else NAMES
    yield from SETTLED if stage is settle else ()
    yield from ("other",) if stage is pass_over else ()


def _all(bench: Bench) -> Counter[str]:
    """Return what another node finds, with the dead letters."""
    other = bench.node(TASK, "shop.other")
    bench.reap()
    for queue in ("q1", "q2"):
        key = bench.keys("delayed", queue)
        for name in bench.client.zrange(key, 0, -1):
            bench.client.zadd(key, {name: 1})
    found = Counter(names(other.take(want=90)))
    for raw in bench.client.hvals(bench.keys("dead_raw", "q1")):
        found[unseal(raw).body.decode()] += 1
    return found


@pytest.mark.parametrize("command", ["HSET", "RPOP", "ZSCORE"])
def test_the_permission_that_is_missing_is_named_and_nothing_is_claimed_without_it(
    make_bench: Make, server: RedisServer, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench()
    bench.push(*NAMES[:3])
    site = Site(bench, server, command)
    site.withdraw()
    for _ in range(3):
        site.turn()

    assert not site.node.held
    assert "the broker refuses claims" in caplog.text
    if command != "ZSCORE":  # without it, the trial cannot begin
        assert f"a node needs {command}" in caplog.text
    site.grant()
    for _ in range(3):
        site.turn()
    server.client.acl_deluser(USER)
    assert len(site.node.held) == 3


def test_a_result_whose_key_is_forbidden_is_kept_until_it_is_allowed(
    make_bench: Make, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench()
    bench.push(*NAMES)
    site = Site(bench, server, "eval")
    site.turn(1)
    site.server.client.execute_command("ACL", "SETUSER", USER, "resetkeys", "~taskapp:*")
    (tag,) = site.node.held
    follow_up = Message("q2", 0, 0, "next", seal("next", TASK, 0, b"next"))
    site.node.settle(tag, leaving(Result("elsewhere", b"{}", 60), follow_up))
    site.turn(0)
    for _ in range(4):
        site.turn(1)

    assert list(site.node.held) == []
    assert bench.client.hkeys(bench.keys("leased", site.node.epoch)) == [tag.encode()]
    assert len(bench.ready()) == len(NAMES) - 1  # it claims no more
    assert "the user of Redis may not settle 1 claims" in caplog.text

    site.server.client.execute_command("ACL", "SETUSER", USER, "allkeys")
    for _ in range(4):
        site.turn(0)
    server.client.acl_deluser(USER)
    assert bench.client.get("elsewhere") == b"{}"
    assert bench.client.hlen(bench.keys("leased", site.node.epoch)) == 0
    assert len(bench.ready("q2")) == 1


@pytest.mark.parametrize("command", ["HDEL", "SET", "LPUSH"])
def test_the_permission_that_a_settle_lacks_is_named(
    make_bench: Make, server: RedisServer, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench()
    bench.push(*NAMES[:3])
    site = Site(bench, server, command)
    site.turn(1)
    site.withdraw()
    (tag,) = site.node.held
    follow_up = Message("q2", 0, 0, "next", seal("next", TASK, 0, b"next"))
    site.node.settle(tag, leaving(Result("result", b"{}", 60), follow_up))
    site.turn(0)
    site.turn(0)

    assert f"a node needs {command}" in caplog.text
    assert not site.node.is_ready()
    site.grant()
    for _ in range(3):
        site.turn(0)
    server.client.acl_deluser(USER)
    assert site.node.is_ready()
    assert len(bench.ready("q2")) == 1
    assert bench.client.hlen(bench.keys("leased", site.node.epoch)) == 0


def test_due_messages_that_may_go_to_one_priority_only_stay_delayed(bench: Bench, server: RedisServer) -> None:
    """The list of the first one is forbidden, that of the last one is not."""
    site = Site(bench, server, "get")
    now = bench.now_ms()
    for name, priority in (("forbidden", 5), ("allowed", 0)):
        bench.push(name, priority=priority, due_ms=now + 500 + priority % 5)
    ready = bench.keys.ready("q1", 5)
    narrow = [f"~{bench.keys.prefix}taskapp:{part}*" for part in ("l", "n", "c", "t", "p", "q", "s", "u", "{q2}")]
    narrow += [f"~taskapp:{{q1}}:{part}" for part in ("delayed*", "wake", "parked*", "ready:[0-46-9]")]
    server.client.execute_command("ACL", "SETUSER", USER, "resetkeys", *narrow)
    eventually(lambda: bench.now_ms() > now + 510)

    for _ in range(3):
        site.turn()
    assert bench.client.llen(ready) == 0
    server.client.execute_command("ACL", "SETUSER", USER, "allkeys")
    for _ in range(3):
        site.turn()

    held = bench.client.hvals(bench.keys("leased", site.node.epoch))
    assert sorted(unseal(blob).id for blob in held) == ["allowed", "forbidden"]
    assert (
        bench.client.zcard(bench.keys("delayed", "q1")) == bench.client.hlen(bench.keys("delayed_messages", "q1")) == 0
    )
