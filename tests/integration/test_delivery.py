"""The engine as users meet it, through Celery: real servers, real workers, real commands."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from billiard.exceptions import TimeLimitExceeded
from celery import Celery, chain, chord, group

from taskapp.engine.producer import Producer
from taskapp.errors import SubmitInterrupted
from taskapp.redis.keys import Keys
from taskapp.transport import channel
from tests.integration import shop
from tests.support import (
    Process,
    RedisServer,
    clean_environment,
    eventually,
    free_port,
    leased_count,
    run_python,
    start_worker,
)

pytestmark = pytest.mark.usefixtures("app")
SHOP = "tests.integration.shop"
StartWorker = Callable[..., Process]


def taskapp(server: RedisServer, *arguments: str, code: int = 0) -> str:
    """Run the ``taskapp`` command as a user would; return what it prints."""
    done = run_python("-m", "taskapp", *arguments, env=clean_environment(TASKAPP_BROKER_URL=server.url))
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def dead_letters(server: RedisServer) -> list[dict]:
    return [json.loads(line) for line in taskapp(server, "dead", "list", "--json").splitlines()]


# --- submitting -----------------------------------------------------------------------------------


def test_a_process_that_submits_holds_one_connection_and_subscribes_to_nothing(redis_server: RedisServer) -> None:
    script = (
        "import sys\nfrom taskapp.tasks import add\n"
        "results = [add.delay(n, n) for n in range(50)]\nadd.submit_many([(1, 2)] * 50)\n"
        "print('submitted', flush=True)\nsys.stdin.read()"
    )
    before = {client["id"] for client in redis_server.client.client_list()}
    web = subprocess.Popen(
        [sys.executable, "-c", script], env=clean_environment(TASKAPP_BROKER_URL=redis_server.url),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert web.stdout.readline() == "submitted\n"
        client = redis_server.client
        mine = client.connection_pool.get_connection()
        mine.disconnect()
        held = [one for one in client.client_list() if one["id"] not in before and one["name"] == "taskapp"]
        subscribed = [one for one in held if one["sub"] != "0" or one["psub"] != "0"]
    finally:
        web.stdin.close()
        web.wait(20)

    assert len(held) == 1
    assert subscribed == []
    assert redis_server.client.llen(Keys().ready("default")) == 100


def test_many_are_submitted_by_the_thousand_and_come_back_in_order(
    worker: StartWorker, redis_server: RedisServer
) -> None:
    from taskapp.tasks import add

    redis_server.client.config_resetstat()
    results = add.submit_many((n, 1) for n in range(2_500))
    pushes = sum(redis_server.client.info("commandstats")[f"cmdstat_{name}"]["calls"] for name in ("evalsha", "set"))
    worker("-P", "threads", "-c", "4")

    assert pushes <= 6
    assert [result.get(timeout=60) for result in results] == [n + 1 for n in range(2_500)]


LARGE = "x" * 400_000
SIZES_AT_ONCE = (1 << 20) + 450_000
"""What a step may take: 1 MiB, and the message that made it full."""


class Pushes:
    """Watches how much is pushed in one step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.numbers: list[int] = []
        push = Producer._push

        def watched(producer: Producer, batch: Any, *rest: Any) -> None:
            self.sizes.append(sum(len(message.blob) for message in batch))
            self.numbers.append(len(batch))
            push(producer, batch, *rest)

        monkeypatch.setattr(Producer, "_push", watched)


@pytest.mark.parametrize("way", ["submit_many", "asubmit_many", "group", "group in a coroutine"])
def test_many_large_tasks_go_out_in_steps_of_few_bytes(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    pushes = Pushes(monkeypatch)
    calls = [(LARGE, str(n)) for n in range(30)]
    signature = group(shop.note.si(*call) for call in calls)

    if way == "submit_many":
        shop.note.submit_many(iter(calls))
    elif way == "asubmit_many":
        asyncio.run(shop.note.asubmit_many(iter(calls)))
    elif way == "group":
        signature.apply_async()
    else:
        asyncio.run(shop.note._submitter.awaiting("group", signature.apply_async))

    assert redis_server.client.llen(Keys().ready("default")) == sum(pushes.numbers) == 30
    assert max(pushes.sizes) <= SIZES_AT_ONCE
    assert len(pushes.sizes) <= 12


def test_of_many_large_tasks_each_step_is_queued_whole_or_not_at_all(redis_server: RedisServer) -> None:
    used = redis_server.client.info("memory")["used_memory"]
    redis_server.client.config_set("maxmemory", used + 6_000_000)
    try:
        with pytest.raises(SubmitInterrupted, match="Redis is full") as caught:
            shop.note.submit_many((LARGE, str(n)) for n in range(40))
    finally:
        redis_server.client.config_set("maxmemory", "0")

    queued = len(caught.value.queued)
    assert redis_server.client.llen(Keys().ready("default")) == queued > 0
    assert caught.value.unknown == {}
    # What was taken from the generator is a thousand at most: all of it.
    assert [int(call[1]) for call in caught.value.not_queued] == list(range(queued, 40))


def test_submitting_many_says_what_is_queued_when_it_stops(redis_server: RedisServer) -> None:
    from taskapp.tasks import add

    with pytest.raises(
        SubmitInterrupted, match=r"1000 are queued, 1000 are not, the outcome of 0 is unknown"
    ) as caught:
        add.submit_many([(1, 2)] * 1_500 + [7] + [(3, 4)] * 600)  # type: ignore[list-item]

    assert len(caught.value.queued) == redis_server.client.llen(Keys().ready("default")) == 1_000
    assert caught.value.not_queued == [(1, 2)] * 500 + [7] + [(3, 4)] * 499
    assert caught.value.unknown == {}


def test_what_a_frozen_broker_may_have_is_named_and_submitting_it_again_does_no_harm(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    shop.note.delay("before", str(ran))
    redis_server.freeze()
    with pytest.raises(SubmitInterrupted) as caught:
        shop.note.submit_many((f"{n}", str(ran)) for n in range(1_200))
    redis_server.thaw()

    assert len(caught.value.unknown) == 1_000
    assert caught.value.queued == caught.value.not_queued == []
    for task_id, call in caught.value.unknown.items():
        shop.note.apply_async(call, task_id=task_id)
    worker(TASKAPP_INCLUDE=SHOP)
    eventually(lambda: redis_server.client.llen(Keys().ready("default")) == leased_count(redis_server) == 0)
    assert sorted(ran.read_text().split()) == sorted(["before", *map(str, range(1_000))])


def test_a_full_redis_refuses_what_is_submitted_and_lets_nodes_make_room(
    worker: StartWorker, redis_server: RedisServer
) -> None:
    from taskapp.errors import BrokerFull
    from taskapp.tasks import add

    results = add.submit_many([(n, n) for n in range(300)])
    redis_server.client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(BrokerFull, match=r"Redis is full .* it is not queued: submit again later"):
            add.delay(1, 1)
        worker("-P", "threads")
        assert results[-1].get(timeout=30) == 598
    finally:
        redis_server.client.config_set("maxmemory", "0")
    assert add.delay(1, 1).get(timeout=20) == 2


def test_other_apps_in_the_process_keep_their_transport(app: Celery, redis_server: RedisServer) -> None:
    from kombu.transport import redis as kombus

    from taskapp.transport.channel import EngineChannel

    other = Celery("other", broker=redis_server.url, set_as_current=False)
    for _ in range(2):
        with app.pool.acquire() as ours, other.pool.acquire() as theirs:
            assert isinstance(ours.default_channel, EngineChannel)
            assert type(theirs.default_channel) is kombus.Channel
            assert ours.as_uri() == theirs.as_uri()


# --- delayed ----------------------------------------------------------------------------------------


def test_delayed_tasks_stay_in_redis_where_they_can_be_listed_cancelled_and_put_off(
    app: Celery, worker: StartWorker, redis_server: RedisServer, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    worker(TASKAPP_INCLUDE=SHOP)
    ids = [
        shop.note.apply_async((name, str(ran)), countdown=60, queue="low", priority=4).id
        for name in ("cancelled", "sooner", "later")
    ]

    listed = [json.loads(line) for line in taskapp(redis_server, "delayed", "list", "--json").splitlines()]
    assert sorted(one["id"] for one in listed) == sorted(ids)
    assert {(one["task"], one["queue"], one["priority"]) for one in listed} == {(f"{SHOP}.note", "low", 4)}
    assert all(abs(one["due_at"] - time.time() - 60) < 10 for one in listed)
    assert "3 of 3 delayed tasks" in taskapp(redis_server, "delayed", "list")
    assert taskapp(redis_server, "delayed", "cancel", ids[0]) == f"cancelled {ids[0]}\n"
    assert f"no delayed task '{ids[0]}'" in taskapp(redis_server, "delayed", "cancel", ids[0], code=1)
    with app.engine() as engine:
        started = time.monotonic()
        assert engine.delayed.reschedule(ids[1], 0.3)
        eventually(ran.exists)
        assert ran.read_text() == "sooner\n"
        assert 0.3 <= time.monotonic() - started < 30
        assert engine.delayed.count()["low"] == 1


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_countdown_ends_when_it_should(worker: StartWorker, tmp_path: Path, pool: str) -> None:
    worker("-P", pool, TASKAPP_INCLUDE=SHOP)
    shop.greet.delay("warm").get(timeout=20)
    late = []
    for _ in range(3):
        ran = tmp_path / f"ran{_}"
        started = time.time()
        shop.note.apply_async(("x", str(ran)), countdown=0.4)
        eventually(ran.exists, every_seconds=0.002)
        assert ran.stat().st_mtime - started + 0.005 >= 0.4
        late.append(time.time() - started - 0.4)
    assert min(late) < 0.5  # a wake-up that is lost costs up to a second


# --- dead letters -----------------------------------------------------------------------------------


def test_a_failed_task_is_kept_shown_edited_and_sent_again(
    app: Celery, worker: StartWorker, redis_server: RedisServer
) -> None:
    worker(TASKAPP_INCLUDE=SHOP)
    result = shop.charge.apply_async((-5,), queue="high", priority=3)
    with pytest.raises(ValueError, match="cannot charge -5"):
        result.get(timeout=20)

    letter = eventually(lambda: dead_letters(redis_server))[0]
    shown = taskapp(redis_server, "dead", "show", letter["letter"])
    assert taskapp(redis_server, "dead", "show", letter["id"]) == shown
    sent = taskapp(redis_server, "dead", "replay", letter["letter"], "--args", "[7]", "--to", "low")

    assert {name: letter[name] for name in ("queue", "reason", "id", "priority")} == {
        "queue": "high", "reason": "failed", "id": result.id, "priority": 3,
    }  # fmt: skip
    assert "ValueError: cannot charge -5" in shown
    assert "[-5]" in shown
    assert "w1@" in shown
    assert sent == "sent 1 dead letters again\n"
    assert dead_letters(redis_server) == []
    again = app.AsyncResult(result.id)
    assert eventually(lambda: again.state == "SUCCESS" and again.get()) == 7


def test_a_task_past_its_hard_limit_is_kept_and_one_that_is_revoked_is_not(
    app: Celery, worker: StartWorker, redis_server: RedisServer, tmp_path: Path
) -> None:
    worker("-P", "prefork", TASKAPP_INCLUDE=SHOP)
    late = shop.dawdle.delay()
    held = shop.hold.delay(str(tmp_path / "never"))
    eventually(lambda: leased_count(redis_server) == 2)
    eventually(lambda: app.control.revoke(held.id, terminate=True) or held.state == "REVOKED", every_seconds=0.3)

    with pytest.raises(TimeLimitExceeded):
        late.get(timeout=20)
    [letter] = eventually(lambda: dead_letters(redis_server))
    assert (letter["id"], letter["reason"]) == (late.id, "failed")
    assert "TimeLimitExceeded" in letter["error"]
    eventually(lambda: leased_count(redis_server) == 0)
    assert redis_server.client.hget("taskapp:counts", "revoked") == "1"


def test_what_kills_its_child_runs_as_often_as_the_limit_says_also_when_children_die_together(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    killers = shop.kill_the_process.submit_many([(str(ran),)] * 12)
    pool = worker("-P", "prefork", "-c", "4", TASKAPP_INCLUDE=SHOP, TASKAPP_CRASH_LIMIT="3")

    eventually(lambda: redis_server.client.zcard("taskapp:{default}:dead:crashed") == len(killers), 150)
    assert Counter(ran.read_text().split()) == {killer.id: 3 for killer in killers}
    assert shop.greet.delay("still here").get(timeout=20) == "hello still here"
    assert pool.returncode is None


def test_bytes_nobody_can_read_are_kept_as_they_came_and_purged_by_filter(
    worker: StartWorker, redis_server: RedisServer
) -> None:
    garbage = bytes(range(256))
    redis_server.client.lpush("default", garbage)
    worker(TASKAPP_INCLUDE=SHOP)
    letter = eventually(lambda: dead_letters(redis_server))[0]
    raw = subprocess.run(
        [sys.executable, "-m", "taskapp", "dead", "show", letter["letter"], "--raw"],
        env=clean_environment(TASKAPP_BROKER_URL=redis_server.url), capture_output=True, timeout=30, check=True,
    ).stdout  # fmt: skip

    assert raw == garbage
    assert letter["reason"] == "unreadable"
    assert shop.greet.delay("still here").get(timeout=20) == "hello still here"
    assert "cannot be edited" in taskapp(redis_server, "dead", "replay", letter["letter"], "--args", "[1]", code=1)
    assert "give --all" in taskapp(redis_server, "dead", "purge", "--yes", code=2)
    assert taskapp(redis_server, "dead", "purge", "--all", "--reason", "failed", "--yes").startswith("purged 0")
    assert taskapp(redis_server, "dead", "purge", "--all", "--reason", "unreadable", "--yes").startswith("purged 1")
    assert dead_letters(redis_server) == []
    assert "no dead letter 'default/99'" in taskapp(redis_server, "dead", "show", "default/99", code=1)


def test_a_long_purge_says_how_far_it_is(
    app: Celery, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = redis_server.client.pipeline(transaction=False)
    for number in range(2_000):
        pipeline.hset("taskapp:{default}:parked", f"shop.v{number}", 0)
        pipeline.rpush(f"taskapp:{{default}}:parked:shop.v{number}", bytes(8) + b"a message")
    pipeline.execute()
    monkeypatch.setattr(channel, "REPORT_SECONDS", 0.0)

    assert app.control.purge() == 2_000

    told = [int(number.replace(",", "")) for number in re.findall(r"purging queue default: ([\d,]+) mess", caplog.text)]
    assert len(told) > 3
    assert told == sorted(told)
    assert told[-1] == 2_000
    assert redis_server.client.keys("*parked*") == []


# --- workers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_canvas_runs_on_every_pool(worker: StartWorker, pool: str) -> None:
    from taskapp.tasks import add

    worker("-P", pool)
    workflow = chain(add.s(1, 1), group(add.s(n) for n in range(5)))
    counted = chord([add.s(n, n) for n in range(10)])(add.s(0).clone(args=([],), kwargs={}, immutable=False))

    assert workflow.apply_async().get(timeout=30) == [2, 3, 4, 5, 6]
    counted.revoke()


def test_remote_control_reaches_a_worker_and_changes_what_it_does(
    app: Celery, worker: StartWorker, redis_server: RedisServer, tmp_path: Path
) -> None:
    worker("-Q", "default", TASKAPP_INCLUDE=SHOP)
    inspect = app.control.inspect(timeout=2)
    # Its subscription begins with the first turn of its loop, just after it says it is ready.
    [(node, registered)] = eventually(inspect.registered).items()
    revoked = shop.greet.apply_async(("nobody",), countdown=0.5)
    app.control.revoke(revoked.id)
    other_queue = shop.greet.apply_async(("later",), queue="low")

    assert f"{SHOP}.greet" in str(registered)
    assert eventually(lambda: revoked.state == "REVOKED")
    assert app.control.add_consumer("low", destination=[node], reply=True)
    assert other_queue.get(timeout=20) == "hello later"
    assert app.control.cancel_consumer("low", destination=[node], reply=True)
    shop.greet.apply_async(("nobody",), queue="low")
    assert app.control.pool_grow(2, destination=[node], reply=True)
    assert shop.greet.delay("grown").get(timeout=20) == "hello grown"
    assert {queue["name"] for queue in inspect.active_queues()[node]} == {"default"}
    assert redis_server.client.llen(Keys().ready("low")) == 1
    assert app.control.ping(timeout=1) == [{node: {"ok": "pong"}}]


def test_who_asked_nodes_before_a_restart_of_redis_asks_again_without_an_error(
    app: Celery, worker: StartWorker, redis_server: RedisServer
) -> None:
    worker("-c", "1")
    eventually(lambda: app.control.inspect(timeout=0.5).ping())
    redis_server.stop()
    redis_server.start()

    assert eventually(lambda: app.control.inspect(timeout=0.5).ping())


def test_sigterm_gives_back_at_once_what_has_not_begun(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    leaving = worker("-c", "1", TASKAPP_INCLUDE=SHOP)
    for _ in range(30):
        shop.greet.delay("quick").get(timeout=20)  # so that it claims ahead
    shop.hold.delay(str(gate))
    eventually(lambda: leased_count(redis_server) >= 1)
    waiting = [shop.greet.delay(str(n)) for n in range(20)]
    leaving._popen.send_signal(signal.SIGTERM)
    staying = worker("-c", "1", name="w2", TASKAPP_INCLUDE=SHOP)

    assert [result.get(timeout=10) for result in waiting] == [f"hello {n}" for n in range(20)]
    assert leaving.returncode is None
    gate.touch()
    assert leaving.wait(20) == 0
    assert staying.returncode is None


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_short_tasks_do_not_wait_behind_a_long_one_while_another_node_is_free(
    worker: StartWorker, tmp_path: Path, pool: str
) -> None:
    gate = tmp_path / "gate"
    worker("-P", pool, "-c", "1", TASKAPP_INCLUDE=SHOP)
    for result in shop.greet.submit_many([("quick",)] * 200):
        result.get(timeout=20)  # so that it claims ahead
    worker("-P", pool, "-c", "1", name="w2", TASKAPP_INCLUDE=SHOP)
    held = group([shop.hold.s(str(gate)), *(shop.greet.s(str(n)) for n in range(40))]).apply_async()

    short = held.results[1:]
    assert [result.get(timeout=20) for result in short] == [f"hello {n}" for n in range(40)]
    gate.touch()
    assert held.results[0].get(timeout=10) is None


def test_a_rate_limit_holds_no_slot(worker: StartWorker) -> None:
    worker("-c", "1", TASKAPP_INCLUDE=SHOP)
    for _ in range(5):
        shop.newsletter.delay()

    assert shop.greet.delay("at once").get(timeout=20) == "hello at once"


@pytest.mark.parametrize("options", [(), ("-P", "prefork"), ("-P", "threads"), ("-P", "solo")], ids=lambda o: o[-1:])
def test_rate_limited_tasks_take_their_turns_on_two_nodes_and_none_comes_back_as_one_that_ran(
    app: Celery, worker: StartWorker, redis_server: RedisServer, options: tuple[str, ...]
) -> None:
    for name in ("w1", "w2"):
        worker("-c", "1", *options, name=name, TASKAPP_INCLUDE=SHOP)
    results = [shop.stamp.delay() for _ in range(60)] + [shop.stamp_on_loop.delay() for _ in range(60)]
    assert shop.greet.delay("at once").get(timeout=20) == "hello at once"

    stamps = [result.get(timeout=30) for result in results]

    for name in ("stamp", "stamp_on_loop"):
        for node in {node for _, node, _, _ in stamps}:
            times = sorted(at for task, on, at, _ in stamps if task == name and on == node)
            assert len(times) - 1 <= shop.STAMPS_A_SECOND * (times[-1] - times[0]) + 2
    assert all(is_first for _, _, _, is_first in stamps)
    eventually(lambda: leased_count(redis_server) == 0)


def test_a_rate_that_is_changed_holds_for_what_waits(app: Celery, worker: StartWorker) -> None:
    worker(TASKAPP_INCLUDE=SHOP)
    results = [shop.newsletter.delay() for _ in range(10)]
    eventually(lambda: any(result.ready() for result in results))

    app.control.rate_limit(shop.newsletter.name, "1000/s", reply=True)

    for result in results:
        result.get(timeout=30)


def test_what_waits_for_its_turn_goes_back_when_its_node_ends(
    app: Celery, worker: StartWorker, redis_server: RedisServer
) -> None:
    node = worker(TASKAPP_INCLUDE=SHOP)
    results = [shop.stamp.delay() for _ in range(100)]
    eventually(lambda: any(result.ready() for result in results))
    assert node.terminate() == 0
    assert leased_count(redis_server) == 0
    worker(name="w2", TASKAPP_INCLUDE=SHOP)

    assert all(result.get(timeout=30)[3] for result in results)


def test_a_redis_that_evicts_is_refused_with_the_command_that_mends_it(
    worker: StartWorker, redis_server: RedisServer
) -> None:
    redis_server.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        refused = worker(wait=False)
        assert refused.wait(20) == 78
    finally:
        redis_server.client.config_set("maxmemory-policy", "noeviction")
    assert "redis-cli CONFIG SET maxmemory-policy noeviction" in refused.output()


def test_what_expired_or_was_revoked_is_counted_and_not_kept(worker: StartWorker, redis_server: RedisServer) -> None:
    expired = [shop.greet.apply_async(("late",), expires=0.01) for _ in range(3)]
    time.sleep(0.02)
    worker(TASKAPP_INCLUDE=SHOP)

    assert all(eventually(lambda result=result: result.state == "REVOKED") for result in expired)
    eventually(lambda: redis_server.client.hget("taskapp:counts", "expired") == "3")
    assert dead_letters(redis_server) == []


# --- other ways to reach Redis ------------------------------------------------------------------------


@pytest.fixture
def socket_server(tmp_path: Path, redis_server: RedisServer) -> Iterator[Path]:
    path = Path("/tmp") / f"taskapp-{tmp_path.name[-20:]}.sock"
    argv = [redis_server.binary, "--port", "0", "--unixsocket", str(path), "--dir", str(tmp_path), "--save", ""]
    server = Process(argv, tmp_path / "socket.log", clean_environment())
    eventually(path.exists)
    yield path
    server.close()
    path.unlink(missing_ok=True)


SUBMIT = """
from taskapp.tasks import add
from taskapp.celery import app
with app.connection_for_write() as connection:
    print(type(connection.default_channel).__name__)
print(add.delay(2, 3).get(timeout=20))
"""


def submitted(url: str, **variables: str) -> list[str]:
    environment = clean_environment(TASKAPP_BROKER_URL=url, **variables)
    done = run_python("-c", SUBMIT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_tasks_travel_over_a_unix_socket(tmp_path: Path, socket_server: Path) -> None:
    url = f"redis+socket://{socket_server}"
    worker = start_worker(tmp_path, url)
    try:
        assert submitted(url) == ["Channel", "5"]
        with redis.Redis(unix_socket_path=str(socket_server)) as client:
            assert client.exists("taskapp:leases")
    finally:
        worker.close()


@pytest.fixture
def sentinel(tmp_path: Path, redis_server: RedisServer) -> Iterator[str]:
    """A master and a replica behind one Sentinel; yields the Sentinel's URL."""
    folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    master, replica = RedisServer(redis_server.binary, folders[0]), RedisServer(redis_server.binary, folders[1])
    replica.client.replicaof("127.0.0.1", master.port)
    port = free_port()
    config = folders[2] / "sentinel.conf"
    config.write_text(
        f"port {port}\ndir {folders[2]}\nsentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 3000\n"
    )
    argv = [redis_server.binary, str(config), "--sentinel"]
    process = Process(argv, folders[2] / "sentinel.log", clean_environment())
    watcher = redis.Redis(port=port, decode_responses=True)
    eventually(lambda: process.returncode is not None or "+slave" in process.output())
    yield f"sentinel://127.0.0.1:{port}/0"
    watcher.close()
    for one in (process, master.process, replica.process):
        one.kill()


def test_tasks_travel_behind_sentinel_and_go_on_after_a_failover(tmp_path: Path, sentinel: str) -> None:
    worker = start_worker(tmp_path, sentinel)
    client = redis.Redis.from_url(sentinel.replace("sentinel", "redis").removesuffix("/0"), decode_responses=True)
    try:
        assert submitted(sentinel) == ["SentinelChannel", "5"]
        before = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
        client.execute_command("SENTINEL", "FAILOVER", "mymaster")
        eventually(lambda: client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster") != before, 30)
        assert submitted(sentinel, TASKAPP_SUBMIT_DEADLINE_SECONDS="10") == ["SentinelChannel", "5"]
        assert worker.returncode is None
    finally:
        worker.close()


def test_tasks_travel_over_tls(tmp_path: Path, redis_server: RedisServer) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    certificate.cert_chain_pems[0].write_to_path(str(files["cert"]))
    certificate.private_key_pem.write_to_path(str(files["key"]))
    port = free_port()
    argv = [
        redis_server.binary, "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", "--save", "",
        "--tls-cert-file", str(files["cert"]), "--tls-key-file", str(files["key"]), "--dir", str(tmp_path),
    ]  # fmt: skip
    server = Process(argv, tmp_path / "tls.log", clean_environment())
    eventually(lambda: server.returncode is not None or "Ready to accept" in server.output())
    if server.returncode is not None:
        pytest.skip("this Redis was built without TLS")
    url = f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={files['ca']}"
    worker = start_worker(tmp_path, url)
    try:
        assert submitted(url) == ["Channel", "5"]
    finally:
        worker.close()
        server.close()
