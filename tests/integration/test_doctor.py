"""`taskapp doctor` as people type it, and what a real stock Celery worker leaves when it is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from taskapp.migrate.adopt import Destination, adopt
from taskapp.queues import DEFAULT_QUEUES, PRIORITIES
from taskapp.redis.keys import Keys
from tests.support import Process, RedisServer, clean_environment, eventually, free_port, processes_of, run_python

TASKS = '''
import os, time
from pathlib import Path
from celery import shared_task

@shared_task(name="old_shop.work", bind=True)
def work(self, gate):
    """Log the start, wait until there is a file ``gate``, log the end."""
    with open(os.environ["WORK_LOG"], "a") as log:
        print("start", self.request.id, time.time(), file=log, flush=True)
    while not Path(gate).exists():
        time.sleep(0.01)
    with open(os.environ["WORK_LOG"], "a") as log:
        print("end", self.request.id, time.time(), file=log, flush=True)
'''
APP = """
import json, os
from celery import Celery

app = Celery("stock", broker=os.environ["STOCK_URL"], include=["old_shop"])
app.conf.update(
    task_acks_late=True, task_default_queue="default", worker_prefetch_multiplier=4,
    broker_transport_options=json.loads(os.environ["STOCK_OPTIONS"]),
)
"""
ETA_SECONDS = 15.0


class Shop:
    """A team on stock Celery, in one folder, which is about to switch."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory, self.url = directory, url
        self.gate, self.log = directory / "gate", directory / "work.log"
        self.options: dict[str, Any] = {}
        self.environment: dict[str, str] = {}
        self.log.touch()
        (directory / "old_shop.py").write_text(TASKS)
        (directory / "stock_app.py").write_text(APP)

    def submit(self, *, queue: str = "default", **options: Any) -> str:
        """Submit one task as stock Celery does; return its id."""
        app = Celery("stock", broker=self.url, set_as_current=False)
        app.conf.broker_transport_options = self.options
        with app:
            sent = app.send_task("old_shop.work", (str(self.gate),), queue=queue, ignore_result=True, **options)
        return str(sent.id)

    def worker(self, *options: str) -> Process:
        """Start a stock worker."""
        environment = clean_environment(
            STOCK_URL=self.url,
            STOCK_OPTIONS=json.dumps(self.options),
            WORK_LOG=str(self.log),
            PYTHONPATH=str(self.directory),
        )
        argv = [sys.executable, "-m", "celery", "-A", "stock_app", "worker", "-n", "old@shop", *options]
        return Process(argv, self.directory / "stock.log", environment, self.directory)

    def doctor(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``taskapp doctor``."""
        environment = clean_environment(
            TASKAPP_DATA_DIR=str(self.directory / "data"),
            PYTHONPATH=os.pathsep.join([str(Path.cwd()), str(self.directory)]),
            **{"TASKAPP_BROKER_URL": self.url, **self.environment, **variables},
        )
        return run_python("-m", "taskapp", "doctor", *arguments, env=environment, cwd=self.directory)

    def runs(self, what: str) -> dict[str, list[float]]:
        """When tasks began, or ended, by id."""
        found: dict[str, list[float]] = {}
        for line in self.log.read_text().splitlines():
            kind, identity, at = line.split()
            if kind == what:
                found.setdefault(identity, []).append(float(at))
        return found


@pytest.fixture
def shop(tmp_path: Path, redis_server: RedisServer) -> Iterator[Shop]:
    yield Shop(tmp_path, redis_server.url)
    for process in processes_of(tmp_path):
        process.kill()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=redis_server.port) as client:
        yield client


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {each["check"]: each for each in json.loads(done.stdout)["findings"]}


def ids_waiting(client: redis.Redis, queue: str = "default", priority: int = 0, prefix: str = "") -> list[str]:
    """Ids of the messages of a queue, the one taken next first; those to be adopted by a node are the last."""
    keys = Keys(prefix)
    lists = [client.lrange(name(queue, priority), 0, -1)[::-1] for name in (keys.ready, keys.kombu)]
    return [json.loads(entry)["headers"]["id"] for entries in lists for entry in entries]


def everything(client: redis.Redis) -> dict[bytes, bytes | None]:
    """Every key that holds tasks, byte for byte."""
    return {key: client.dump(key) for key in client.scan_iter() if not key.startswith(b"_kombu")}


def held_ids(client: redis.Redis) -> list[str]:
    """Ids of the messages a stock worker holds, in the order of delivery."""
    tags = client.zrange("unacked_index", 0, -1)
    return [json.loads(value)[0]["headers"]["id"] for value in client.hmget("unacked", tags)]


# --- switching over ------------------------------------------------------------------------------


def test_what_a_killed_stock_worker_held_runs_on_ours_and_each_task_once(
    shop: Shop, client: redis.Redis, worker: Callable[..., Process]
) -> None:
    ready = [shop.submit(queue=queue, priority=p) for queue in ("default", "high") for p in (0, 3, 5, 9)]
    begun_at = time.time()
    due = [shop.submit(countdown=ETA_SECONDS) for _ in range(2)]
    old = shop.worker("-c", "2", "-Q", "default,high")
    eventually(lambda: len(shop.runs("start")) == 2 and client.hlen("unacked") == 10, within_seconds=40)
    waiting = [shop.submit() for _ in range(3)]
    eventually(lambda: client.hlen("unacked") + client.llen(Keys().kombu("default")) == 13)
    every_id = {*ready, *due, *waiting}

    refused = shop.doctor("--adopt")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: stock workers still seem to be alive: 'old@shop' answers; the client at ")
    looked = shop.doctor("--json")
    assert "held by stock workers that still run" in findings(looked)["stock celery"]["found"]

    begun = set(shop.runs("start"))
    old.kill()
    held = held_ids(client)
    assert begun < set(held)
    before = everything(client)

    shown = json.loads(shop.doctor("--adopt", "--dry-run", "--json").stdout)
    assert everything(client) == before
    assert {message["id"] for message in shown["adopted"]} == set(held)
    assert {(m["queue"], m["priority"]) for m in shown["adopted"] if m["id"] in ready} == {
        (queue, priority) for queue in ("default", "high") for priority in (0, 3, 5, 9)
    }

    adopted = shop.doctor("--adopt")
    assert (adopted.returncode, adopted.stderr) == (0, "")
    assert client.hlen("unacked") == client.zcard("unacked_index") == 0
    still_waiting = [identity for identity in waiting if identity not in held]
    assert ids_waiting(client) == [identity for identity in held if identity in ids_waiting(client)] + still_waiting
    assert "no messages left by stock workers" in shop.doctor("--adopt").stdout

    shop.gate.touch()
    worker("-c", "4", TASKAPP_INCLUDE="old_shop", WORK_LOG=str(shop.log))
    eventually(lambda: set(shop.runs("end")) == every_id, within_seconds=40)
    assert Counter(len(times) for times in shop.runs("end").values()) == {1: 13}
    # Begun twice only what the killed worker had begun.
    assert {identity for identity, times in shop.runs("start").items() if len(times) == 2} == begun
    assert all(shop.runs("start")[identity][0] >= begun_at + ETA_SECONDS - 0.05 for identity in due)
    assert not any(client.llen(key) for queue in DEFAULT_QUEUES for key in Keys().waiting(queue))


@pytest.mark.parametrize("separator", [None, ":"])
def test_merged_priorities_keep_the_order_of_stock_celery(
    shop: Shop, client: redis.Redis, separator: str | None
) -> None:
    if separator:
        # As Celery's guide to priorities has it.
        shop.options = {"sep": separator, "priority_steps": list(range(10)), "queue_order_strategy": "priority"}
    steps = shop.options.get("priority_steps", [0, 3, 6, 9])
    sent = [(priority, shop.submit(priority=priority)) for _ in range(2) for priority in reversed(steps)]
    in_order = [identity for _, identity in sorted(sent, key=lambda pair: pair[0])]

    shown = shop.doctor("--adopt", "--merge-priorities", "--dry-run", "--json")
    merged = shop.doctor("--adopt", "--merge-priorities", "--json")

    assert json.loads(shown.stdout)["moved"] == json.loads(merged.stdout)["moved"] == {"default": 2 * len(steps) - 2}
    assert ids_waiting(client) == in_order
    merged_entries = client.lrange(Keys().ready("default"), 0, -1)
    assert {json.loads(entry)["properties"]["priority"] for entry in merged_entries} == {0}
    assert json.loads(shop.doctor("--adopt", "--json").stdout)["waiting"] == {}


def test_lists_named_with_a_colon_are_renamed_to_where_nodes_look(shop: Shop, client: redis.Redis) -> None:
    shop.options = {"sep": ":", "priority_steps": list(range(10)), "queue_order_strategy": "priority"}
    sent = {priority: [shop.submit(priority=priority) for _ in range(2)] for priority in PRIORITIES}
    assert client.llen("default:9") == 2

    done = shop.doctor("--adopt", "--json")

    assert {priority: ids_waiting(client, "default", priority) for priority in PRIORITIES} == sent
    assert not client.keys("default:*")
    assert json.loads(done.stdout)["waiting"] == {"default": {str(priority): 2 for priority in range(1, 10)}}


def test_nodes_of_ours_do_not_hinder_an_adoption(
    shop: Shop, client: redis.Redis, worker: Callable[..., Process]
) -> None:
    node = worker(TASKAPP_INCLUDE="old_shop", WORK_LOG=str(shop.log), TASKAPP_QUEUES="default,high")
    shop.submit(queue="low")
    hold(client, 1, source="low")
    shop.gate.touch()

    done = shop.doctor("--adopt")

    assert (done.returncode, done.stderr) == (0, ""), node.output()
    eventually(lambda: "held-0" in shop.runs("end"))


def test_messages_of_an_exchange_go_to_the_queues_bound_to_it(shop: Shop, client: redis.Redis) -> None:
    shop.submit()
    hold(client, 1, exchange="orders", routing_key="orders.eu.paid")
    client.sadd("_kombu.binding.orders", "orders.#\x06\x16^orders\\..*?$\x06\x16low", "x\x06\x16\x06\x16high")

    assert [message.queue for message in adopt(place(client)).adopted] == ["low"]
    assert ids_waiting(client, "low") == ["held-0"]


# --- never lost, never twice ---------------------------------------------------------------------


def place(client: redis.Redis, **options: Any) -> Destination:
    return Destination(client, options.pop("key_prefix", ""), DEFAULT_QUEUES, **options)


def hold(
    client: redis.Redis,
    count: int,
    *,
    prefix: str = "",
    source: str = "default",
    exchange: str = "",
    routing_key: str = "default",
) -> None:
    """Record messages as held, as a worker on kombu's transport does; all like the next one of ``source``."""
    message = json.loads(client.lindex(f"{prefix}{source}", -1))
    for number in range(count):
        message["headers"]["id"] = f"held-{number}"
        message["properties"]["delivery_tag"] = f"tag-{number}"
        client.hset(f"{prefix}unacked", f"tag-{number}", json.dumps([message, exchange, routing_key]))
        client.zadd(f"{prefix}unacked_index", {f"tag-{number}": 1_000 + number})


def adopt_until_done(url: str) -> None:
    with redis.Redis.from_url(url, retry=None, socket_timeout=10, client_name="adopter") as client:
        while True:
            try:
                adopt(place(client))
            except (redis.RedisError, OSError):
                continue
            return


def start_adopters(url: str, count: int) -> list[threading.Thread]:
    adopters = [threading.Thread(target=adopt_until_done, args=(url,)) for _ in range(count)]
    for thread in adopters:
        thread.start()
    return adopters


def assert_all_are_queued_once(client: redis.Redis, count: int, behind: str) -> None:
    assert client.hlen("unacked") == client.zcard("unacked_index") == 0
    waiting = ids_waiting(client)
    assert Counter(waiting) == Counter([f"held-{number}" for number in range(count)] + [behind])
    assert waiting[-1] == behind


def test_adoptions_at_once_move_each_message_once(shop: Shop, client: redis.Redis, redis_server: RedisServer) -> None:
    first = shop.submit()
    hold(client, 2_000)

    for thread in start_adopters(redis_server.url, 3):
        thread.join()

    assert_all_are_queued_once(client, 2_000, behind=first)


def test_an_adoption_on_breaking_connections_moves_each_message_once(
    shop: Shop, client: redis.Redis, redis_server: RedisServer
) -> None:
    first = shop.submit()
    hold(client, 3_000)
    adopters = start_adopters(redis_server.url, 1)

    breaks = 0
    while any(thread.is_alive() for thread in adopters):
        others = [each for each in client.client_list() if each["name"] == "adopter"]
        breaks += sum(client.client_kill_filter(_id=each["id"]) for each in others)
        time.sleep(0.005)

    assert breaks > 3, "too quick to be broken; hold more messages"
    assert_all_are_queued_once(client, 3_000, behind=first)


def test_a_message_its_worker_settles_meanwhile_is_not_queued_again(shop: Shop, client: redis.Redis) -> None:
    shop.submit()
    hold(client, 3)
    settling = place(client)
    plan = settling.client.hmget
    settling.client.hmget = lambda *args: (plan(*args), client.hdel("unacked", "tag-1"))[0]  # type: ignore[method-assign]

    report = adopt(settling)

    assert [message.id for message in report.adopted] == ["held-2", "held-0"]
    assert ids_waiting(client)[:2] == ["held-0", "held-2"]
    assert client.zcard("unacked_index") == 0


def test_what_cannot_be_adopted_stays_as_it_is_and_is_named(shop: Shop, client: redis.Redis) -> None:
    shop.submit()
    hold(client, 1, routing_key="celery")
    client.hset("unacked", "broken", b"\xff{")
    client.lpush("low", "no message")
    client.zadd("unacked_index", {"broken": 5, "only in the index": 6})
    before = client.hgetall("unacked")

    done = shop.doctor("--adopt")

    assert done.returncode == 1
    assert "error left          1 stay: queue 'celery' is not in TASKAPP_QUEUES (tag-0)" in done.stdout
    assert "-> set TASKAPP_QUEUES=critical,high,default,low,celery and run this again" in done.stdout
    assert "1 stay: cannot be read as a kombu message (broken)" in done.stdout
    assert client.hgetall("unacked") == before
    assert set(client.zrange("unacked_index", 0, -1)) == {b"broken", b"tag-0"}
    assert shop.doctor("--adopt", TASKAPP_QUEUES="default,celery").returncode == 1
    assert ids_waiting(client, "celery") == ["held-0"]


def test_a_full_server_a_prefix_and_a_lost_index_do_not_stop_an_adoption(shop: Shop, client: redis.Redis) -> None:
    shop.options = {"global_keyprefix": "shop:"}
    shop.submit(priority=6)
    client.rename("shop:default\x06\x166", "shop:default")
    hold(client, 500, prefix="shop:")
    client.delete("shop:default")
    client.zremrangebyrank("shop:unacked_index", 0, 399)
    client.config_set("maxmemory", "1")
    try:
        report = adopt(place(client, key_prefix="shop:"))
    finally:
        client.config_set("maxmemory", "0")

    assert len(report.adopted) == 500
    moved = ids_waiting(client, "default", 6, "shop:")
    assert sorted(moved) == sorted(f"held-{number}" for number in range(500))
    assert moved[-100:] == [f"held-{number}" for number in range(400, 500)]
    assert not client.exists("shop:unacked", "shop:unacked_index")


# --- examining -----------------------------------------------------------------------------------


def test_a_server_is_examined_and_its_faults_are_errors(shop: Shop, client: redis.Redis) -> None:
    healthy = shop.doctor()
    assert (healthy.returncode, healthy.stderr) == (0, "")
    assert healthy.stdout.startswith(f"broker {shop.url}\nok    reachable     it answers\nok    speed ")
    assert "warn  nodes         none\n" in healthy.stdout

    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("appendonly", "no")
    try:
        ill = shop.doctor("--json")
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("appendonly", "yes")
    assert ill.returncode == 1
    assert json.loads(ill.stdout)["verdict"] == findings(ill)["eviction"]["verdict"] == "error"
    assert "CONFIG SET maxmemory-policy noeviction" in findings(ill)["eviction"]["remedy"]
    assert (findings(ill)["persistence"]["verdict"], findings(ill)["disk"]["verdict"]) == ("warn", "ok")


def test_nodes_are_told_by_lease_and_by_answer(shop: Shop, worker: Callable[..., Process]) -> None:
    shop.environment = {"TASKAPP_LEASE_SECONDS": "2"}
    node = worker("-P", "solo", TASKAPP_INCLUDE="old_shop", TASKAPP_LEASE_SECONDS="2", WORK_LOG=str(shop.log))
    looked = findings(shop.doctor("--json"))["nodes"]
    assert (looked["verdict"], looked["found"][:42]) == (
        "ok",
        "1 alive by their leases, 1 answer: w1@" + os.uname().nodename[:4],
    )

    shop.submit()
    eventually(lambda: shop.runs("start"))
    busy = findings(shop.doctor("--json"))["nodes"]
    assert (busy["verdict"], busy["found"]) == ("warn", "1 alive by their leases, 0 answer")

    node.kill()
    silent = eventually(lambda: "fell silent" in (found := shop.doctor("--json").stdout) and found)
    assert "1 fell silent holding 1 tasks that no node takes over" in silent


def test_a_server_that_is_gone_or_refuses_is_one_finding(shop: Shop, client: redis.Redis) -> None:
    gone = shop.doctor("--json", TASKAPP_BROKER_URL=f"redis://:secret@127.0.0.1:{free_port()}/0")
    assert (gone.returncode, list(findings(gone))) == (1, ["reachable"])
    assert "does not answer" in findings(gone)["reachable"]["found"]
    assert "secret" not in gone.stdout + gone.stderr

    client.config_set("requirepass", "right")
    try:
        refused = shop.doctor("--json", TASKAPP_BROKER_URL=shop.url.replace("//", "//:wrong@"))
        adoption = shop.doctor("--adopt", TASKAPP_BROKER_URL=shop.url.replace("//", "//:wrong@"))
        welcome = shop.doctor("--json", TASKAPP_BROKER_URL=shop.url.replace("//", "//:right@"))
    finally:
        redis.Redis(port=client.connection_pool.connection_kwargs["port"], password="right").config_set(
            "requirepass", ""
        )
    assert "refuses the login" in findings(refused)["reachable"]["found"]
    assert adoption.returncode == 1
    assert "refuses the login" in adoption.stderr
    assert findings(welcome)["password"]["found"] == "a password is required; connected as user 'default'"


def test_of_another_broker_it_says_what_it_cannot_check(shop: Shop) -> None:
    other = shop.doctor("--json", TASKAPP_BROKER_URL="memory://")
    assert other.returncode == 0
    assert {name: each["verdict"] for name, each in findings(other).items()} == {
        "reachable": "ok", "not checked": "warn", "nodes": "warn",
    }  # fmt: skip
    assert "persistence, disk, eviction, memory" in findings(other)["not checked"]["found"]

    gone = shop.doctor("--json", TASKAPP_BROKER_URL=f"amqp://guest:secret@127.0.0.1:{free_port()}//")
    assert (gone.returncode, findings(gone)["reachable"]["verdict"]) == (1, "error")
    assert "secret" not in gone.stdout + gone.stderr

    adoption = shop.doctor("--adopt", TASKAPP_BROKER_URL="memory://")
    assert adoption.returncode == 1
    assert adoption.stderr == (
        "Error: TASKAPP_BROKER_URL is memory://…; only redis://, rediss:// and unix:// can be examined\n"
    )


def test_without_any_broker_the_ways_out_are_named(shop: Shop) -> None:
    done = shop.doctor("--json", TASKAPP_BROKER_URL="", TASKAPP_EMBEDDED="never")
    assert done.returncode == 1
    assert "set TASKAPP_BROKER_URL" in findings(done)["reachable"]["remedy"]
    assert shop.doctor("--dry-run").returncode == 2
