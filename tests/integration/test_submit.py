"""What is sent, by our way and by kombu's: the same message, the same signals, the same event."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, group, signals
from celery._state import _task_stack
from celery.canvas import Signature
from celery.exceptions import TaskRevokedError
from kombu import Exchange, Queue

from taskapp.client.protocol import new_id
from taskapp.client.sender import Sender
from taskapp.engine.batch import collecting
from taskapp.engine.envelope import unseal
from taskapp.errors import InvalidPayload, PayloadTooLarge, UnknownQueue, UnknownTask
from taskapp.redis.keys import Keys
from taskapp.transport.codec import SENT_AT_HEADER, unpack
from tests.integration import shop
from tests.support import RedisServer, clean_environment, eventually, run_python

pytestmark = pytest.mark.usefixtures("app")

TOMORROW = datetime.now(UTC) + timedelta(days=1)
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "a countdown": {"countdown": 30},
    "an aware eta": {"eta": TOMORROW},
    "an expiry in seconds": {"expires": 60},
    "an expiry": {"expires": TOMORROW},
    "an expiry in the past": {"expires": -5},
    "a queue and a priority": {"queue": "low", "priority": 7},
    "the highest priority": {"priority": 9},
    "links": {"link": shop.greet.s(), "link_error": [shop.greet.si("oh"), shop.greet.si("no")]},
    "limits": {"time_limit": 10, "soft_time_limit": 5, "retries": 2},
    "family": {"root_id": "root", "parent_id": "parent", "group_id": "group", "group_index": 3},
    "stamps": {"stamped_headers": ["customer"], "customer": "c-7"},
    "headers of one's own": {"headers": {"trace": "abc", "origin": "elsewhere"}},
    "what is shown": {"argsrepr": "(hidden)", "kwargsrepr": "{hidden}", "shadow": "a greeting"},
    "no result": {"ignore_result": True},
    "a reply queue": {"reply_to": "there", "correlation_id": "c"},
    "compression": {"compression": "gzip"},
    "another serializer": {"serializer": "yaml"},
    "a chain": {"chain": [shop.greet.s("last")]},
}


@contextmanager
def by_kombu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(Sender, "template", lambda *_: None)
        patch.setattr(Sender, "usual_template", lambda *_: None)
        patch.setattr(Sender, "known_template", lambda *_: None)
        yield


def taken(server: RedisServer) -> dict[str, Any]:
    """The one message that lies in Redis, taken out."""
    client = server.client
    client.connection_pool.connection_kwargs["decode_responses"] = False
    found = [client.lpop(key) for key in client.scan_iter() if client.type(key) == b"list" and b"wake" not in key]
    for key in client.scan_iter("*:delayed:messages"):
        found += client.hvals(key)
    client.flushall()
    [blob] = found
    envelope = unseal(blob)
    message = unpack(envelope)
    message["priority"] = envelope.priority
    return message


def comparable(message: dict[str, Any]) -> dict[str, Any]:
    headers = dict(message["headers"])
    assert abs(headers.pop(SENT_AT_HEADER) - time.time()) < 60
    times = {name: headers.pop(name) for name in ("eta", "expires") if name in headers}
    assert all(
        abs(datetime.fromisoformat(moment) - TOMORROW) < timedelta(days=2) for moment in times.values() if moment
    )
    body = message["body"]
    body = json.loads(body) if message["content-type"] == "application/json" and isinstance(body, str) else body
    return {
        **message, "body": body, "headers": {**headers, "timelimit": list(headers["timelimit"])},
        "times": {name: moment and moment[:15] for name, moment in times.items()},
    }  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("how", ["by task", "by name"])
def test_our_message_is_celerys(
    app: Celery, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, how: str, options: dict[str, Any]
) -> None:
    def send() -> dict[str, Any]:
        if how == "by task":
            shop.greet.apply_async(("Ada",), task_id="one", **options)
        else:
            app.send_task("else.where", ("Ada", 1.5), {"x": None}, task_id="one", **options)
        return comparable(taken(redis_server))

    send()  # the first makes connections
    ours = send()
    with by_kombu(monkeypatch):
        theirs = send()

    assert ours == theirs


def test_a_wide_range_of_arguments_arrives_as_with_kombu(
    app: Celery, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from decimal import Decimal
    from uuid import UUID

    args = (
        "ünï\u2028\x00'\"", 2**70, -0.0, 1e300, None, True, b"\xff\x00", b"text", Decimal("1.50"), UUID(int=7),
        TOMORROW, TOMORROW.date(), {"1": [[], {}, [[[["deep"]]]]]}, ["x" * 5_000],
    )  # fmt: skip
    app.send_task("else.where", args, {"key": args}, task_id="one")
    ours = taken(redis_server)
    with by_kombu(monkeypatch):
        app.send_task("else.where", args, {"key": args}, task_id="one")
    theirs = taken(redis_server)

    assert comparable(ours) == comparable(theirs)


def test_a_short_text_of_the_arguments_is_shown_whatever_they_are(app: Celery, redis_server: RedisServer) -> None:
    class Odd(str):
        def __repr__(self) -> str:
            raise RuntimeError("no")

    app.send_task("else.where", (Odd("x"),), {"wide": "y" * 100_000})
    headers = taken(redis_server)["headers"]

    assert "Unrepresentable" in headers["argsrepr"] or "x" in headers["argsrepr"]
    assert len(headers["kwargsrepr"]) < 1_100


def test_what_listens_before_a_task_is_sent_may_change_it_and_after_it_hears_of_it(redis_server: RedisServer) -> None:
    heard: list[str] = []

    def before(sender: str, body: Any, headers: dict, properties: dict, routing_key: str, **_: Any) -> None:
        heard.append(f"before {routing_key}")
        assert redis_server.client.llen(Keys().ready("default")) == 0
        headers["trace"] = "abc"
        properties["priority"] = 4
        body[1]["name"] = "changed"

    def after(sender: str, headers: dict, **_: Any) -> None:
        heard.append(f"after {headers['trace']}")
        assert redis_server.client.llen(Keys().ready("default", 4)) == 1

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        shop.greet.apply_async((), {"name": "Ada"})
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    message = taken(redis_server)

    assert heard == ["before default", "after abc"]
    assert (message["headers"]["trace"], message["priority"]) == ("abc", 4)
    assert json.loads(message["body"])[1] == {"name": "changed"}


def published(server: RedisServer, send: Callable[[], Any]) -> dict[str, Any]:
    with server.client.pubsub() as pubsub:
        pubsub.psubscribe("*celeryev*")
        pubsub.get_message(timeout=5)
        send()
        message = json.loads(eventually(lambda: pubsub.get_message(timeout=1))["data"])
    assert message["properties"].pop("delivery_tag")
    event = json.loads(message.pop("body"))
    assert abs(event.pop("timestamp") - time.time()) < 60
    assert event.pop("clock")
    return {**message, "event": event}


def test_the_event_is_celerys_and_comes_with_the_message(
    app: Celery, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send() -> Any:
        return shop.greet.apply_async(("Ada",), task_id="one", queue="high", root_id="r", parent_id="p", retries=1)

    ours = published(redis_server, send)
    with by_kombu(monkeypatch):
        theirs = published(redis_server, send)

    assert ours == theirs


def test_no_event_is_sent_when_the_configuration_says_so(app: Celery, redis_server: RedisServer) -> None:
    app.conf.task_send_sent_event = False
    try:
        redis_server.client.config_resetstat()
        shop.greet.delay("Ada")
        assert "cmdstat_publish" not in redis_server.client.info("commandstats")
    finally:
        del app.conf["task_send_sent_event"]
    assert published(redis_server, lambda: shop.greet.delay("Ada"))["event"]["type"] == "task-sent"


def test_tasks_are_eager_from_the_moment_the_configuration_says_so(app: Celery, redis_server: RedisServer) -> None:
    app.conf.update(task_always_eager=True)
    try:
        assert shop.greet.delay("Ada").get() == "hello Ada"
        assert [result.get() for result in shop.greet.submit_many([("Ada",), ("Bob",)])] == ["hello Ada", "hello Bob"]
    finally:
        del app.conf["task_always_eager"]
    shop.greet.delay("Ada")
    assert redis_server.client.llen(Keys().ready("default")) == 1


def test_a_route_that_looks_at_arguments_is_asked_for_each_task(app: Celery, redis_server: RedisServer) -> None:
    usual = app.conf.task_routes
    app.conf.update(task_routes=(lambda name, args, kwargs, options, task=None: {"queue": args[0], "priority": 2},))
    try:
        shop.greet.delay("low")
        shop.greet.submit_many([("high",), ("low",)])
    finally:
        app.conf.update(task_routes=usual)
    client = redis_server.client
    assert (client.llen(Keys().ready("low", 2)), client.llen(Keys().ready("high", 2))) == (2, 1)
    shop.greet.delay("low")
    assert client.llen(Keys().ready("default")) == 1


def test_an_exchange_or_queue_of_the_callers_goes_by_kombu(app: Celery, redis_server: RedisServer) -> None:
    shop.greet.apply_async(("Ada",), queue=Queue("mine", Exchange("mine"), routing_key="mine"))
    assert redis_server.client.llen(Keys().ready("mine")) == 1
    with app.connection_for_write() as connection:
        shop.greet.apply_async(("Ada",), connection=connection)
        shop.greet.apply_async(("Ada",), producer=app.amqp.Producer(connection))
    assert redis_server.client.llen(Keys().ready("default")) == 2


def test_what_cannot_be_sent_is_refused_and_nothing_is_queued(app: Celery, redis_server: RedisServer) -> None:
    with pytest.raises(UnknownQueue, match=r"no queue named 'lwo'; did you mean 'low'\?"):
        shop.greet.apply_async(("Ada",), queue="lwo")
    with pytest.raises(UnknownTask, match=r"did you mean 'taskapp\.add'"):
        app.send_task("taskapp.ad")
    with pytest.raises(InvalidPayload, match="only values that JSON can represent"):
        shop.greet.delay(object())
    with pytest.raises(PayloadTooLarge, match="more than the limit"):
        shop.greet.delay("x" * 2_000_000)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        shop.greet.delay()
    with pytest.raises(TypeError, match="task args must be a list or tuple"):
        app.send_task("else.where", "Ada")
    with pytest.raises(InvalidPayload):
        shop.greet.apply_async(("Ada",), link=shop.greet.s(object()))
    assert redis_server.client.dbsize() <= 1  # the producer's number of an earlier push


def test_ids_are_random_uuids_also_in_a_forked_child() -> None:
    from uuid import UUID

    ids = {new_id() for _ in range(10_000)}
    assert len(ids) == 10_000
    assert {UUID(one).version for one in ids} == {4}
    assert {str(UUID(one)) for one in ids} == ids
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, "".join(new_id() for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 4_096).decode()
    assert not {theirs[start : start + 36] for start in range(0, len(theirs), 36)} & {new_id() for _ in range(100)}


def test_many_threads_submit_over_one_connection(redis_server: RedisServer) -> None:
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.extend(shop.greet.delay(str(n)) for n in range(50))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert redis_server.client.llen(Keys().ready("default")) == len({result.id for result in results}) == 400


def test_canvas_goes_the_same_way(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Celery, "send_task", None)  # nothing goes by Celery's own

    group(shop.greet.s(str(n)) for n in range(3)).apply_async()
    chain(shop.greet.s("a"), shop.greet.si("b")).apply_async()
    shop.greet.s("x").apply_async(countdown=60)

    assert redis_server.client.llen(Keys().ready("default")) == 4


@contextmanager
def running(task: Any, **request: Any) -> Iterator[None]:
    """Be inside a run of ``task``."""
    task.push_request(called_directly=False, children=[], **request)
    _task_stack.push(task)
    try:
        yield
    finally:
        _task_stack.pop()
        task.pop_request()


def sent_by_group(server: RedisServer, tasks: list[Any], **options: Any) -> list[dict[str, Any]]:
    """The messages of a group, in order, with its random ids numbered."""
    result = group(tasks).apply_async(**options)
    client = server.client
    client.connection_pool.connection_kwargs["decode_responses"] = False
    messages = [unpack(unseal(blob)) for blob in reversed(client.lrange(Keys().ready("default"), 0, -1))]
    client.flushall()
    found = {message["headers"]["id"] for message in messages}
    assert {member.id for member in result.results} & found
    numbers: dict[str, str] = {}
    for message in messages:
        message["body"] = json.loads(message["body"])
        assert abs(message["headers"].pop(SENT_AT_HEADER) - time.time()) < 60
    text = UUID_TEXT.sub(
        lambda match: numbers.setdefault(match[0], f"id {len(numbers)}"), json.dumps(messages, sort_keys=True)
    )
    return json.loads(text)


UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
GROUPS: dict[str, Callable[[], list[Any]]] = {
    "plain": lambda: [shop.greet.s("Ada"), shop.greet.s(name="Bob")],
    "with options and links": lambda: [shop.greet.s("Ada").set(priority=0, time_limit=7), shop.greet.s("Bob"),
                                       shop.greet.s("Cy").set(link=shop.greet.si("then"))],
    "of groups and chains": lambda: [group(shop.greet.s("Ada"), shop.greet.s("Bob")), shop.greet.s("Cy"),
                                     chain(shop.greet.s("Di"), shop.greet.si("Ed"))],
    "of dicts": lambda: [shop.greet.s("Bob"), json.loads(json.dumps(shop.greet.s("Ada")))],
}  # fmt: skip


@pytest.mark.parametrize("inside", [False, True], ids=["from outside", "from inside a task"])
@pytest.mark.parametrize("options", [{}, {"task_id": "gid"}, {"root_id": "r"}, {"time_limit": 3}], ids=str)
@pytest.mark.parametrize("tasks", GROUPS.values(), ids=GROUPS)
def test_the_messages_of_a_group_are_celerys(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tasks: Callable[[], list[Any]],
    options: dict[str, Any], inside: bool,
) -> None:  # fmt: skip
    with running(shop.greet, id="runs", root_id="root", delivery_info={"priority": 3}) if inside else nullcontext():
        sent_by_group(redis_server, tasks(), **options)  # the first makes connections
        ours = sent_by_group(redis_server, tasks(), **options)
        with by_kombu(monkeypatch):
            theirs = sent_by_group(redis_server, tasks(), **options)

    assert ours == theirs


def test_plain_tasks_of_a_group_do_not_go_celerys_way(
    app: Celery, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.greet.delay("first")
    monkeypatch.setattr(Signature, "apply_async", None)

    result = group(shop.greet.s(str(n)) for n in range(3)).apply_async()

    assert redis_server.client.llen(Keys().ready("default")) == 4
    assert len({member.id for member in result.results}) == 3
    assert [member.children for member in [result]] == [result.results]


def test_the_task_that_sends_a_group_has_it_as_a_child_once(redis_server: RedisServer) -> None:
    with running(shop.greet, id="runs", root_id="root", delivery_info={}):
        result = group(shop.greet.s("a"), shop.greet.s("b")).apply_async()
        alone = shop.greet.delay("c")
        assert shop.greet.request.children == [result, alone]


def test_celerys_receiver_hears_of_each_of_many_tasks(app: Celery, redis_server: RedisServer) -> None:
    heard: list[dict[str, Any]] = []
    with app.connection_for_read() as lent:
        receiver = app.events.Receiver(lent, handlers={"task-sent": heard.append})
        with receiver.consumer_context() as (connection, _, _):
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.1)
            eventually(redis_server.client.pubsub_numpat)
            sent = shop.greet.submit_many([(str(n),) for n in range(250)])
            while len(heard) < 250:
                connection.drain_events(timeout=10)

    assert [event["uuid"] for event in heard] == [result.id for result in sent]
    assert {event["queue"] for event in heard} == {"default"}
    assert len({event["clock"] for event in heard}) == 250


def test_many_tasks_take_few_commands(redis_server: RedisServer) -> None:
    shop.greet.delay("first")
    redis_server.client.config_resetstat()
    shop.greet.submit_many([(str(n),) for n in range(1_000)])
    counted = redis_server.client.info("commandstats")

    assert counted["cmdstat_lpush"]["calls"] <= 2
    assert counted["cmdstat_publish"]["calls"] <= 10


def test_what_is_mixed_arrives_in_order(redis_server: RedisServer) -> None:
    for options in ({}, {"countdown": -1}, {}, {"priority": 5}, {}, {"queue": "low"}):
        shop.greet.apply_async((str(options),), **options)
    one_by_one = contents(redis_server)
    with collecting():
        for options in ({}, {"countdown": -1}, {}, {"priority": 5}, {}, {"queue": "low"}):
            shop.greet.apply_async((str(options),), **options)

    assert contents(redis_server) == one_by_one


def contents(server: RedisServer) -> dict[str, list[Any]]:
    """The arguments that lie in each queue, which are emptied."""
    client = server.client
    client.connection_pool.connection_kwargs["decode_responses"] = False
    found = {
        (queue, at): [
            json.loads(unpack(unseal(blob))["body"])[0] for blob in client.lrange(Keys().ready(queue, at), 0, -1)
        ]
        for queue, at in (("default", 0), ("default", 5), ("low", 0))
    }
    client.flushall()
    return found


# --- ids ------------------------------------------------------------------------------------------


def test_an_id_given_as_a_uuid_is_its_text_in_every_way_of_submitting(app: Celery, redis_server: RedisServer) -> None:
    ways: list[Callable[[uuid.UUID], Any]] = [
        lambda one: shop.greet.apply_async(("x",), task_id=one, root_id=one, parent_id=one, correlation_id=one),
        lambda one: app.send_task(shop.greet.name, ("x",), task_id=one),
        lambda one: shop.greet.s("x").set(task_id=one).apply_async(),
        lambda one: group([shop.greet.s("x").set(task_id=one)])().results[0],
        lambda one: chain(shop.greet.s("x").set(task_id=one), shop.greet.s())().parent,
        lambda one: asyncio.run(shop.greet.aapply_async(("x",), task_id=one)),
        lambda one: app.AsyncResult(one),
    ]
    given = [uuid.uuid4() for _ in ways]
    assert [way(one).id for way, one in zip(ways, given, strict=True)] == [str(one) for one in given]
    shop.greet.submit_many([("x",)], group_id=given[0])
    sent = [unseal(raw) for raw in redis_server_raw(redis_server).lrange(Keys().ready("default"), 0, -1)]
    assert {envelope.id for envelope in sent} >= {str(one) for one in given[:-1]}
    assert all(isinstance(unpack(envelope)["headers"]["root_id"], str) for envelope in sent)


def redis_server_raw(server: RedisServer) -> redis.Redis:
    return redis.Redis(port=server.port)


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"serializer": "nosuch"}, "serializer is 'nosuch'; use one that is installed here: "),
    ({"compression": "foo"}, "compression is 'foo'; use one that is installed here: .*gzip"),
    ({"countdown": nan}, "countdown is nan; use a finite number of seconds, up to the year 9999"),
    ({"countdown": inf}, "countdown is inf; use a finite number of seconds, up to the year 9999"),
    ({"countdown": 1e16}, "countdown is 1e[+]16; use a finite"),
    ({"countdown": -1e12}, "countdown is -1000000000000.0; use a finite"),
    ({"countdown": "5"}, "countdown is '5'; use a number of seconds"),
    ({"eta": "soon"}, "eta is 'soon'; use a datetime or an ISO 8601 string, up to the year 9999"),
    ({"eta": [1]}, r"eta is \[1\]; use a datetime"),
    ({"expires": nan}, "expires is nan; use seconds, a datetime or"),
    ({"expires": "later"}, "expires is 'later'; use seconds, a datetime or"),
    ({"link": "x"}, "link is 'x'; use a signature, such as add.s"),
    ({"link_error": [5]}, "link_error is 5; use a signature, such as add.s"),
    ({"task_id": 17}, "task_id is 17; use a string or a uuid.UUID"),
]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"task_id": 5}, "task_id is 5; use a string or a uuid.UUID"),
        ({"root_id": []}, r"root_id is \[\]; use a string or a uuid.UUID"),
        ({"headers": {"taskapp_schedule": []}}, "header 'taskapp_schedule': expected `str | null`, got `array`"),
        ({"headers": {"get": 1}}, "header 'get': the name would hide"),
        ({"time_limit": "soon"}, r"header 'timelimit\[0\]': expected `float | null`, got `str`"),
        ({"retries": -1}, "header 'retries': expected `int` >= 0"),
        *BAD_OPTIONS,
    ],
)
def test_what_no_node_could_read_is_refused_at_the_caller(
    redis_server: RedisServer, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(
        InvalidPayload, match=f"^task {shop.greet.name!r} cannot be submitted: {problem}".replace("|", r"\|")
    ):
        shop.greet.apply_async(("x",), **options)
    assert not redis_server.client.llen(Keys().ready("default"))


@pytest.mark.parametrize(("options", "problem"), BAD_OPTIONS)
def test_over_another_broker_what_has_no_meaning_is_refused_too(options: dict[str, Any], problem: str) -> None:
    code = f"""
import datetime
from math import inf, nan
import taskapp.celery
from taskapp.tasks.add import add
try:
    add.apply_async((1, 2), **{options!r})
except ValueError as error:
    print(error)
"""
    done = run_python("-c", code, env=clean_environment(TASKAPP_BROKER_URL="memory://"))

    assert re.match(f"task 'taskapp.add' cannot be submitted: {problem}", done.stdout), done.stderr


@pytest.mark.parametrize(
    "code",
    ["result.get(timeout=1)", "result.state", "result.ready()", "result.result", "chord([add.s(1, 2)])(add.s(3))"],
)
def test_without_a_place_for_results_the_setting_is_named(code: str) -> None:
    start = (
        "from celery import chord; import taskapp.celery; from taskapp.tasks.add import add; result = add.delay(1, 2)"
    )
    done = run_python("-c", f"{start}; {code}", env=clean_environment(TASKAPP_BROKER_URL="memory://"))

    assert done.stderr.splitlines()[-1].startswith(
        "taskapp.errors.tasks.NoResultsKept: no results are kept: the broker is not Redis and TASKAPP_RESULT_URL is not"
    ), done.stderr


def test_a_revoke_by_uuid_ends_the_task_that_runs(
    app: Celery, worker: Callable[..., Any], redis_server: RedisServer, tmp_path: Path
) -> None:
    worker(TASKAPP_INCLUDE="tests.integration.shop")
    given = uuid.uuid4()
    result = shop.hold_softly.apply_async((str(tmp_path / "never"),), task_id=given)
    eventually(lambda: app.control.inspect().query_task(given) and result.state == "STARTED")

    app.control.revoke(given, terminate=True)

    with pytest.raises(TaskRevokedError):
        result.get(timeout=10)
