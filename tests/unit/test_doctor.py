"""What `taskapp doctor` makes of what a server tells, and how it reads the messages of stock workers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from taskapp.cli.doctor import _print_findings
from taskapp.migrate.stock_celery import at_lowest_priority, read_held, read_waiting
from taskapp.monitor.doctor import Finding, ServerUnreachable, connect, plain
from taskapp.monitor.doctor_checks import CHECKS, CheckOutcome, DeploymentFacts, Stall, is_local, judge
from taskapp.monitor.doctor_tasks import Leases, held_by_stock_workers, in_other_queues, many_waiting, nodes, parked

NOW = 1_800_000_000.0
HEALTHY = DeploymentFacts(
    url="redis://:secret@127.0.0.1:6379/0",
    info={
        "redis_version": "7.0.15", "cluster_enabled": 0, "role": "master", "connected_slaves": 1, "aof_enabled": 1,
        "rdb_last_bgsave_status": "ok", "aof_last_bgrewrite_status": "ok", "aof_last_write_status": "ok",
        "rdb_last_save_time": int(NOW) - 600, "rdb_changes_since_last_save": 42, "maxmemory_policy": "noeviction",
        "used_memory": 10 * 2**20, "maxmemory": 100 * 2**20, "total_system_memory": 2**30, "connected_clients": 5,
        "maxclients": 10_000,
    },
    config={"appendfsync": "everysec", "save": "3600 1", "timeout": "0", "maxclients": "10000"},
    round_trips_seconds=(0.0001, 0.0002, 0.0003),
    now_at=NOW,
    ahead_seconds=0.01,
    is_open=False,
    refused_scripting="",
    stalls=(),
)  # fmt: skip
FAR = "redis://:secret@redis.example.com:6379/0"


def look(check: str, *, info: dict[str, Any] | None = None, **changes: Any) -> CheckOutcome:
    """Judge a healthy server with these changes; a ``None`` in ``info`` takes the field away."""
    merged = {**HEALTHY.info, **(info or {})}
    known = {name: value for name, value in merged.items() if value is not None}
    return judge(CHECKS[check], replace(HEALTHY, info=known, **changes))


def test_a_healthy_server_passes_every_check() -> None:
    outcomes = {name: judge(check, HEALTHY) for name, check in CHECKS.items()}

    assert {name for name, outcome in outcomes.items() if outcome.verdict != "ok"} == set()
    assert all(outcome.found and not outcome.remedy for outcome in outcomes.values())


@pytest.mark.parametrize(
    ("check", "verdict", "found", "remedy", "changes"),
    [
        ("speed", "warn", "PING takes 9.00 ms, 20.00 ms at worst", "network",
         {"round_trips_seconds": (0.009, 0.009, 0.02)}),
        ("version", "error", "Redis 6.0.16", "6.2", {"info": {"redis_version": "6.0.16"}}),
        ("version", "ok", "Redis 6.2.0", "", {"info": {"redis_version": "6.2.0"}}),
        ("version", "error", "Valkey 7.1", "7.2", {"info": {"valkey_version": 7.1}}),
        ("version", "ok", "Valkey 9.1.2", "", {"info": {"valkey_version": "9.1.2", "redis_version": "7.2.4"}}),
        ("cluster", "error", "not supported", "cluster-enabled no", {"info": {"cluster_enabled": 1}}),
        ("role", "error", "refuses writes", "10.0.0.1:6379",
         {"info": {"role": "slave", "master_host": "10.0.0.1", "master_port": 6379}}),
        ("persistence", "ok", "the last second", "", {}),
        ("persistence", "ok", "loses nothing", "", {"config": {"appendfsync": "always"}}),
        ("persistence", "warn", "30 s", "CONFIG SET appendfsync everysec", {"config": {"appendfsync": "no"}}),
        ("persistence", "warn", "42 changes of the last 10 minutes", "CONFIG SET appendonly yes",
         {"info": {"aof_enabled": 0}}),
        ("persistence", "warn", "all waiting tasks are lost", "redis.conf: appendonly yes",
         {"info": {"aof_enabled": 0}, "config": {"save": ""}}),
        ("persistence", "ok", "appendfsync could not be read", "", {"config": {}}),
        ("disk", "error", "aof_last_write_status is 'err'", "log", {"info": {"aof_last_write_status": "err"}}),
        ("eviction", "error", "deletes queues silently",
         "CONFIG SET maxmemory-policy noeviction, and in redis.conf: maxmemory-policy noeviction",
         {"info": {"maxmemory_policy": "allkeys-lru"}}),
        ("eviction", "warn", "results", "noeviction", {"info": {"maxmemory_policy": "volatile-ttl"}}),
        ("eviction", "warn", "7 keys were evicted", "lost", {"info": {"evicted_keys": 7}}),
        ("memory", "ok", "10.0 MiB of maxmemory 12.6 MiB (79%)", "", {"info": {"maxmemory": int(12.6 * 2**20)}}),
        ("memory", "warn", "(80%)", "CONFIG SET maxmemory", {"info": {"maxmemory": int(12.5 * 2**20)}}),
        ("memory", "error", "about to refuse new tasks", "drain", {"info": {"maxmemory": int(10.5 * 2**20)}}),
        ("memory", "warn", "the system may kill", "limit",
         {"info": {"maxmemory": 0, "total_system_memory": 14 * 2**20}}),
        ("memory", "ok", "no maxmemory", "", {"info": {"maxmemory": 0}}),
        ("stalls", "warn", "the longest by the command KEYS for 900 ms, 10 minutes ago", "SLOWLOG GET",
         {"stalls": (Stall("the command KEYS", 0.9, NOW - 600), Stall("the event fork", 0.2, NOW))}),
        ("stalls", "ok", "", "", {"stalls": (Stall("the command KEYS", 0.9, NOW - 3_601), Stall("x", 0.09, NOW))}),
        ("clock", "warn", "2.500 s behind", "NTP", {"ahead_seconds": -2.5}),
        ("clock", "warn", "1.100 s ahead of", "NTP", {"ahead_seconds": 1.1}),
        ("encryption", "warn", "no TLS", "rediss://", {"url": FAR}),
        ("encryption", "ok", "TLS", "", {"url": FAR.replace("redis:", "rediss:")}),
        ("encryption", "ok", "does not leave", "", {"url": "unix:///run/redis.sock"}),
        ("password", "error", "no password", "requirepass", {"url": FAR, "is_open": True}),
        ("password", "ok", "loopback only", "", {"is_open": True}),
        ("password", "ok", "user 'shop'", "", {"url": "redis://shop:secret@redis/0"}),
        ("clients", "warn", "80 of maxclients 100", "maxclients",
         {"info": {"connected_clients": 80, "maxclients": 100}}),
        ("clients", "error", "95 of maxclients 100", "maxclients",
         {"info": {"connected_clients": 95, "maxclients": 100}}),
        ("clients", "ok", "5 of maxclients 10000", "", {"info": {"maxclients": None}}),
        ("idle clients", "warn", "after 60 s", "CONFIG SET timeout 0", {"config": {"timeout": "60"}}),
        ("idle clients", "warn", "could not be read: this server does not report 'timeout'", "CONFIG GET",
         {"config": {}}),
        ("scripting", "error", "NOPERM", "ACL SETUSER default +@scripting", {"refused_scripting": "NOPERM no"}),
    ],
)  # fmt: skip
def test_each_trouble_has_a_verdict_and_a_remedy(
    check: str, verdict: str, found: str, remedy: str, changes: dict[str, Any]
) -> None:
    outcome = look(check, **changes)

    assert outcome.verdict == verdict, outcome
    assert found in outcome.found
    assert remedy in outcome.remedy
    assert bool(outcome.remedy) == (verdict != "ok")
    assert "secret" not in outcome.found + outcome.remedy


def test_a_server_that_tells_nothing_is_not_failed_for_it() -> None:
    outcomes = [judge(check, replace(HEALTHY, info={}, config={})) for check in CHECKS.values()]

    assert "error" not in {outcome.verdict for outcome in outcomes}
    assert sum("could not be read" in outcome.found for outcome in outcomes) == 9


def test_the_words_of_kombu_in_a_url_are_understood() -> None:
    assert plain("rediss://host/0?ssl_cert_reqs=CERT_NONE") == "rediss://host/0?ssl_cert_reqs=none"
    assert plain("redis+socket:///run/redis.sock") == "unix:///run/redis.sock"
    assert plain("redis+socket:///run/redis.sock?virtual_host=3") == "unix:///run/redis.sock?db=3"
    assert plain("redis+socket://:pw@/run/r.sock?a=1&virtual_host=/3") == "unix://:pw@/run/r.sock?a=1&db=3"


@pytest.mark.parametrize("url", ["redis://:sec/ret@host:1/0", "redis://:secret@host:x/0", "redis://:secret@h/0?foo=1"])
def test_a_url_that_cannot_be_read_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ServerUnreachable) as refusal:
        connect(url, "TASKAPP_BROKER_URL")

    assert str(refusal.value) == (
        "TASKAPP_BROKER_URL is not a valid URL; write redis://:password@host:6379/0, "
        "with the password percent-encoded (/ is %2F, @ is %40, # is %23)"
    )
    assert refusal.value.__suppress_context__


def test_another_broker_than_redis_is_refused_with_a_sentence() -> None:
    with pytest.raises(ServerUnreachable, match="TASKAPP_BROKER_URL is amqp://…; only redis://"):
        connect("amqp://guest:secret@host//", "TASKAPP_BROKER_URL")


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("redis://127.0.0.1:1/0", True), ("redis://127.9.9.9/0", True), ("redis://[::1]:1/0", True),
        ("redis://localhost/0", True), ("unix:///run/x", True), ("redis:///0", True),
        ("redis://redis/0", False), ("redis://10.0.0.1/0", False), ("redis://localhost.example.com/0", False),
    ],
)  # fmt: skip
def test_only_loopback_and_sockets_stay_on_this_machine(url: str, local: bool) -> None:
    assert is_local(url) is local


def held(**changes: Any) -> list[Any]:
    properties = {
        "delivery_tag": "t1", "priority": 9, "correlation_id": "i1", "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": "default"},
    }  # fmt: skip
    headers = {"id": "i1", "task": "shop.pay", "timelimit": [None, None], "stamps": {}, "links": [], "big": 2**63 + 1}
    message = {
        "body": "W10=", "content-type": "application/json", "content-encoding": "utf-8",
        "headers": headers, "properties": properties, **changes,
    }  # fmt: skip
    return [message, "", "default"]


def test_an_adopted_message_differs_only_in_being_redelivered() -> None:
    value = held()

    adopted = json.loads(read_held(json.dumps(value).encode()).to_json())

    assert adopted["headers"].pop("redelivered") is True
    assert adopted["properties"]["delivery_info"].pop("redelivered") is True
    assert adopted == value[0]


def test_a_merged_message_differs_only_in_its_priority() -> None:
    message = held()[0]

    merged = json.loads(at_lowest_priority(json.dumps(message).encode()))

    assert merged["properties"].pop("priority") == 0
    del message["properties"]["priority"]
    assert merged == message


@pytest.mark.parametrize(
    ("sent", "read"), [(9, 9), (0, 0), ("7", 7), (-1, 0), (12, 9), (None, 0), ("x", 0), ([], 0), (float("inf"), 0)]
)
def test_a_priority_is_read_as_kombu_reads_it(sent: object, read: int) -> None:
    value = held()
    value[0]["properties"]["priority"] = sent

    assert read_held(json.dumps(value).encode()).priority == read


def test_in_a_ready_list_messages_of_kombu_are_told_from_ours() -> None:
    assert read_waiting(json.dumps(held()[0]).encode()) == held()[0]
    assert read_waiting(b"\x01\x03\0\0\0\0\x02i1\x08shop.pay\x98") is None
    assert read_waiting(b'{"body": 1}') is None


def test_a_message_without_delivery_info_gets_that_of_its_record() -> None:
    value = held()
    del value[0]["properties"]["delivery_info"]

    adopted = json.loads(read_held(json.dumps(value).encode()).to_json())

    assert adopted["properties"]["delivery_info"] == {"exchange": "", "routing_key": "default", "redelivered": True}


@pytest.mark.parametrize(
    "value",
    [
        b"", b"\xff\xfe{", b"{}", b"[]", b"17", b"null", b'"abc"', b"[1, 2, 3]", b"[" * 100_000, b"NaN",
        json.dumps(held()[:2]).encode(), json.dumps([*held(), "x"]).encode(),
        json.dumps([held()[0], None, "q"]).encode(),
        json.dumps([held()[0], "", None]).encode(), json.dumps(held(body=None)).encode(),
        json.dumps(held(headers=None)).encode(), json.dumps(held(properties={})).encode(),
        json.dumps(held(properties={"delivery_tag": 1})).encode(),
        json.dumps(held(properties={"delivery_tag": "t", "delivery_info": "x"})).encode(),
    ],
    ids=range(19),
)  # fmt: skip
def test_what_no_worker_could_read_is_told_from_messages(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a list of|not a kombu message|Expecting value|codec|Extra data"):
        read_held(value)


@pytest.mark.parametrize(
    ("answering", "leases", "verdict", "found"),
    [
        (["a", "b"], Leases(2, 0, 0), "ok", "2 alive by their leases, 2 answer: a, b"),
        (list("abcdefg"), Leases(7, 0, 0), "ok", "7 alive by their leases, 7 answer: a, b, c, d, e and 2 more"),
        (["a"], Leases(1, 1, 5), "ok", "1 alive by their leases, 1 answer: a"),
        ([], Leases(0, 0, 0), "warn", "none"),
        ([], Leases(0, 2, 7), "warn", "2 fell silent holding 7 tasks that no node takes over"),
        (["a"], Leases(2, 0, 0), "warn", "2 alive by their leases, 1 answer: a"),
        ([], Leases(1, 0, 0), "warn", "1 alive by their leases, 0 answer"),
        (["a", "b"], Leases(1, 0, 0), "warn", "1 alive by their leases, 2 answer: a, b"),
        (["a"], Leases(2, 0, 0, ("a",)), "warn", "2 alive by their leases, 1 answer: a; more than one node is named a"),
        (["a"], None, "ok", "1 answer: a"),
        ([], None, "warn", "no node answers"),
    ],
)
def test_nodes_are_judged_by_lease_and_by_answer(
    answering: list[str], leases: Leases | None, verdict: str, found: str
) -> None:
    outcome = nodes(answering, leases)

    assert (outcome.verdict, bool(outcome.remedy)) == (verdict, verdict == "warn")
    assert found in outcome.found


def test_what_waits_is_told_by_queue() -> None:
    assert many_waiting({"high": 0, "low": 0}) == ("ok", "nothing", "")
    assert many_waiting({"high": 3, "low": 9_999}) == ("ok", "high 3, low 9999", "")
    assert many_waiting({"high": 10_000}).verdict == "warn"
    assert in_other_queues(["high"], {"high": 3, "celery": 0}, declares=True).verdict == "ok"
    lost = "messages in queues no node consumes: 2 in 'celery'"
    waiting = {"high": 3, "celery": 2}
    assert in_other_queues(["high"], waiting, declares=True) == ("warn", lost, "set TASKAPP_QUEUES=high,celery")
    assert in_other_queues(["high"], waiting, declares=False) == ("warn", lost, "start a node with -Q celery")


def test_task_types_that_no_node_has_are_named_most_messages_first() -> None:
    assert parked({}).verdict == "ok"
    found = parked({"shop.pay": 1, "shop.sned": 3})
    assert (found.verdict, found.found) == ("warn", "tasks whose type no node has: 3 of 'shop.sned', 1 of 'shop.pay'")
    assert "correct the name" in found.remedy
    assert parked({f"shop.t{n}": 1 for n in range(8)}).found.endswith(" and 3 more types")


def test_what_stock_workers_hold_is_to_be_adopted_once_they_are_gone() -> None:
    assert held_by_stock_workers(0, []).verdict == "ok"
    assert held_by_stock_workers(3, []).remedy.startswith("run `taskapp doctor --adopt`")
    assert held_by_stock_workers(3, [], "proj").remedy.startswith("run `taskapp -A proj doctor --adopt`")
    assert held_by_stock_workers(3, ["'old@host' answers"]).remedy.startswith("to migrate, stop those workers")


def test_each_line_of_a_remedy_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    _print_findings(
        "", [Finding("broker", "reachable", "error", "no broker found", "do one of these:\n  1. this\n  2. that")]
    )

    first, *others = capsys.readouterr().out.splitlines()
    assert first == "error reachable     no broker found"
    assert [line.strip() for line in others] == ["-> do one of these:", "1. this", "2. that"]


def test_the_guide_explains_every_check() -> None:
    guide = Path("docs/doctor.md").read_text()
    rows = {line.split("|")[1].strip() for line in guide.splitlines() if line.startswith("| ")}

    assert rows - {"check"} == {
        "reachable",
        *CHECKS,
        "nodes",
        "waiting",
        "other queues",
        "task types",
        "outbox: rows",
        "stock celery",
    }
