"""A project's own app on real nodes: routes, queues, base classes, signals, commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import celery as stock
import pytest
from celery import chain, chord
from kombu import Exchange, Queue

from taskapp import Celery
from taskapp.errors import UnknownQueue
from taskapp.errors.publishing import Unroutable
from taskapp.redis.keys import Keys
from taskapp.settings import forget_settings
from tests.support import QUICKLY, Process, RedisServer, clean_environment, eventually, run_python, start_worker

HERE = Path(__file__).parent


@pytest.fixture
def node(redis_server: RedisServer, tmp_path: Path) -> Iterator[Process]:
    worker = start_worker(
        tmp_path, redis_server.url, "-Q", "urgent,usual,dynamic", app="proj", PROJ_BROKER=redis_server.url,
        PYTHONPATH=str(HERE),
    )  # fmt: skip
    yield worker
    worker.close()


@pytest.fixture
def client(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Celery:
    monkeypatch.setenv("PROJ_BROKER", redis_server.url)
    sys.modules.pop("tests.integration.proj", None)
    from tests.integration import proj

    return proj.app


def command(redis_server: RedisServer, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = clean_environment(PROJ_BROKER=redis_server.url, PYTHONPATH=f"{HERE}:{Path.cwd()}", **variables)
    return run_python("-m", *words, env=env)


def named(client: Celery, name: str) -> str:
    return next(known for known in client.tasks if known.endswith(f"proj.{name}"))


def test_a_project_runs_as_celery_documents_it(node: Process, client: Celery, redis_server: RedisServer) -> None:
    # The node knows it as proj; this process as tests.integration.proj.
    send = lambda name, *args, **options: client.send_task(f"proj.{name}", args, **options)  # noqa: E731

    assert send("pay", 2).get(timeout=20) == [6, "urgent", 1]
    assert send("wait", 0.05).get(timeout=20) == 0.05
    assert send("flaky").get(timeout=20) == 2
    assert send("elsewhere", queue="dynamic").get(timeout=20) == "dynamic"
    add, total = client.signature("proj.add"), client.signature("proj.total")
    assert chord([add.clone((n, n)) for n in range(4)], total.clone())().get(timeout=20) == 12
    assert chain(add.clone((1, 2)), add.clone((3,)))().get(timeout=20) == 6
    said = node.output()
    assert "setting worker_prefetch_multiplier has no effect" in said
    assert "broker_transport_options['visibility_timeout'] has no effect" in said
    assert "weak" not in said


@pytest.mark.parametrize("name", ["due", "own_due"])
def test_a_task_knows_when_it_was_due(node: Process, client: Celery, name: str) -> None:
    due = datetime.now(UTC) + timedelta(seconds=1)

    assert datetime.fromisoformat(client.send_task(f"proj.{name}", eta=due).get(timeout=20)) == due
    assert client.send_task(f"proj.{name}").get(timeout=20) is None


def test_a_naive_due_time_is_utc_whatever_the_time_zone(redis_server: RedisServer) -> None:
    app = Celery("zone", broker=redis_server.url, timezone="Asia/Tokyo", set_as_current=False)
    hour = timedelta(hours=1)
    result = app.send_task("proj.add", (1, 2), eta=datetime.utcnow() + hour)  # noqa: DTZ003 - the case
    with app.engine() as engine:
        [message] = engine.delayed.soonest("celery")
        assert message.id == result.id
        assert abs(message.due_at - engine.dead_letters.now() - 3_600) < 60


def test_a_task_that_no_queue_would_get_is_refused_where_it_is_submitted(client: Celery) -> None:
    with pytest.raises(Unroutable, match=r"'work' with the routing key 'nosuch'"):
        client.send_task("proj.add", (1, 2), exchange="work", routing_key="nosuch")


def test_a_default_queue_that_is_set_later_counts_from_then_on(redis_server: RedisServer) -> None:
    app = Celery("late", broker=redis_server.url, set_as_current=False)

    @app.task(name="late.task", shared=False)
    def task() -> None: ...

    for queue in ("celery", "late", "later"):
        app.conf.task_default_queue = queue
        app.send_task("late.other")
        task.delay()
        task.apply_async()
        assert redis_server.client.llen(Keys().ready(queue)) == 3


@pytest.mark.parametrize("kind", ["direct", "topic"])
def test_a_queue_is_found_again_after_redis_has_lost_its_bindings(redis_server: RedisServer, kind: str) -> None:
    exchange = Exchange(f"lost-{kind}", type=kind)
    app = Celery(
        "lost", broker=redis_server.url, set_as_current=False, task_default_queue="one",
        task_queues=[Queue(name, exchange, routing_key=name) for name in ("one", "two")],
    )  # fmt: skip
    for _ in range(2):
        app.send_task("x", queue="two")
        app.send_task("x", exchange=exchange.name, routing_key="two", exchange_type=kind)
        assert redis_server.client.llen(Keys().ready("two")) == 2
        redis_server.client.flushall()
    with pytest.raises(Unroutable):
        app.send_task("x", exchange=exchange.name, routing_key="three", exchange_type=kind)


def test_every_command_works_on_the_project(node: Process, client: Celery, redis_server: RedisServer) -> None:
    client.send_task("proj.add", (1, 2), queue="nobody")
    client.send_task("proj.pay", (2,)).get(timeout=20)

    top = json.loads(command(redis_server, "taskapp", "-A", "proj", "top", "--json").stdout.splitlines()[0])
    assert {"urgent", "usual", "dynamic", "nobody"} <= {queue["name"] for queue in top["queues"]}
    checked = json.loads(command(redis_server, "taskapp", "-A", "proj", "doctor", "--json").stdout)
    remedies = {finding["check"]: finding["remedy"] for finding in checked["findings"]}
    assert remedies["other queues"] == "start a node with -Q nobody"
    assert not remedies["task types"]
    assert "no dead letters" in command(redis_server, "taskapp", "-A", "proj", "dead", "list").stdout
    stats = json.loads(command(redis_server, "celery", "-A", "proj", "inspect", "stats", "--json").stdout)
    [pool] = [each["pool"] for each in stats.values()]
    assert pool["processes"][0] in [node.pid, *pool["processes"]]
    assert command(redis_server, "celery", "-A", "proj", "status").returncode == 0


WRONG_APPS = {
    "nosuch": "cannot be loaded: ModuleNotFoundError",
    "nosuch:app": "No module named 'nosuch'; is there a module of that name in ",
    "json:nosuch": "the module 'json' has no 'nosuch'; name the variable that holds the app",
    "json": "no app was found in the module 'json'; name its module and variable, as in -A json.celery:app",
    "plain_app:app": "an app of stock Celery; create it with `from taskapp import Celery`",
    "json:dumps": "no Celery app but a function; name the variable that holds the app, as in -A json:app",
    "proj:state": "no Celery app but a dict; the app is 'app': give -A proj:app",
    "proj:": "no Celery app but a module; the app is 'app': give -A proj:app",
    "proj:app.conf": "the module 'proj' has no 'app.conf'; name the variable that holds the app",
    "proj:app:conf": "the module 'proj' has no 'app:conf'; name the variable that holds the app",
}


@pytest.mark.parametrize("name", WRONG_APPS)
def test_an_app_that_is_none_is_named_in_one_line(redis_server: RedisServer, name: str) -> None:
    done = command(redis_server, "taskapp", "-A", name, "dead", "list")

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert WRONG_APPS[name] in done.stderr


@pytest.mark.parametrize("words", ["worker", "beat", "inspect ping"])
def test_an_app_that_is_none_is_named_before_a_command_of_celery_is_advised(
    redis_server: RedisServer, words: str
) -> None:
    done = command(redis_server, "taskapp", "-A", "proj:state", *words.split())

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert WRONG_APPS["proj:state"] in done.stderr


def test_tasks_that_never_start_are_found_by_the_doctor(
    node: Process, client: Celery, redis_server: RedisServer
) -> None:
    client.send_task("proj.ad", (1, 2))
    client.send_task("proj.add", (1, 2), queue="delayed_only", countdown=600)

    def found() -> dict[str, str]:
        checked = json.loads(command(redis_server, "taskapp", "-A", "proj", "doctor", "--json").stdout)
        said = {finding["check"]: finding["found"] for finding in checked["findings"]}
        return said if "'proj.ad'" in said["task types"] else {}

    said = eventually(found)
    assert said["task types"] == "tasks whose type no node has: 1 of 'proj.ad'"
    assert said["other queues"] == "messages in queues no node consumes: 1 in 'delayed_only'"


@pytest.fixture
def twins(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, list[Process]]]:
    monkeypatch.setitem(QUICKLY, "wanted", False)  # they ask their neighbours
    nodes: list[Process] = []
    with ExitStack() as stack:
        for place, name in (("one", "twin@here"), ("two", "twin@here"), ("three", "other@here")):
            (tmp_path / place).mkdir()
            node = start_worker(
                tmp_path / place, redis_server.url, "-n", name, app="proj", PROJ_BROKER=redis_server.url,
                PYTHONPATH=str(HERE),
            )  # fmt: skip
            stack.callback(node.close)
            nodes.append(node)
        yield "twin@here", nodes


def test_nodes_that_share_a_name_are_told_of(redis_server: RedisServer, twins: tuple[str, list[Process]]) -> None:
    name, nodes = twins
    said = [f"another node that runs is named {name}" in node.output() for node in nodes]
    assert said == [False, True, False]
    assert "such as celery -A proj worker -n web1@%h" in nodes[1].output()

    def found() -> str:
        checked = json.loads(command(redis_server, "taskapp", "-A", "proj", "doctor", "--json").stdout)
        [nodes] = [finding["found"] for finding in checked["findings"] if finding["check"] == "nodes"]
        return nodes if "3 alive" in nodes else ""

    assert eventually(found).endswith(f"more than one node is named {name}")


ROUTED = """
import os, redis
from taskapp import Celery
app = Celery("routed", broker=os.environ["PROJ_BROKER"], task_create_missing_queues={creates})
app.conf.task_routes = {{"routed.mail": {{"queue": "emails"}}}}

@app.task
def mail(x):
    redis.Redis.from_url(os.environ["PROJ_BROKER"]).rpush("mailed", x)
"""
ADVISING = {
    "taskapp task show -A proj x": "Give it before the command: taskapp -A proj",
    "taskapp -A proj worker": "run: celery -A proj worker",
    "taskapp -A proj dead show nosuch/1": "no dead letter 'nosuch/1'; 'taskapp -A proj dead list' names them",
    "taskapp -A proj delayed cancel nosuch": "no delayed task 'nosuch'; 'taskapp -A proj delayed list' names them",
    "taskapp -A proj schedules show nosuch": "no schedule named 'nosuch'; see: taskapp -A proj schedules list",
    "taskapp -A proj:app schedules show nosuch": "see: taskapp -A proj:app schedules list",
    "taskapp schedules show nosuch": "see: taskapp schedules list",
    "taskapp -A proj delayed list --queue nosuch": "usual; it is not declared, and nothing has used it)",
    "celery -A proj inspect -t 0.1 -d nosuch@host ping": "'celery -A proj status' lists the nodes that answer",
}


@pytest.mark.parametrize("line", ADVISING)
def test_advice_names_the_app_of_the_command(redis_server: RedisServer, line: str) -> None:
    assert ADVISING[line] in command(redis_server, *line.split(), TASKAPP_BROKER_URL=redis_server.url).stderr


def test_the_advice_for_a_queue_names_the_setting_that_declares_queues(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = {"task_queues": [Queue("one")], "task_default_queue": "one", "task_create_missing_queues": False}
    app = Celery("queues", broker=redis_server.url, set_as_current=False, **declared)
    for submit in (lambda: app.send_task("x", queue="two"), lambda: app.check_queue("two")):
        with pytest.raises(UnknownQueue, match=r"queues: one; declare it in task_queues, or set task_create_missing"):
            submit()
    monkeypatch.setenv("TASKAPP_QUEUES", "default,one")
    forget_settings()
    app = Celery("queues", broker=redis_server.url, set_as_current=False)
    with pytest.raises(UnknownQueue, match=r"queues: default, one; add one with TASKAPP_QUEUES"):
        app.send_task("x", queue="two")


@pytest.mark.parametrize("creates", [True, False])
def test_messages_of_queues_that_the_project_does_not_declare_are_adopted(
    redis_server: RedisServer, tmp_path: Path, creates: bool
) -> None:
    """As routes and ``-Q`` make them; the countdown of one has not ended."""
    (tmp_path / "routed.py").write_text(ROUTED.format(creates=creates))
    old = stock.Celery("old", broker=redis_server.url, set_as_current=False)
    delayed = old.send_task("routed.mail", (2,), queue="emails", countdown=3_600)
    old.send_task("routed.mail", (1,), queue="emails")
    while entry := redis_server.client.rpop("emails"):
        tag = json.loads(entry)["properties"]["delivery_tag"]
        redis_server.client.hset("unacked", tag, json.dumps([json.loads(entry), "", "emails"]))
        redis_server.client.zadd("unacked_index", {tag: 1})
    old.send_task("routed.mail", (3,), queue="emails", priority=3)
    redis_server.client.rename("emails\x06\x163", "emails:3")
    env = clean_environment(PROJ_BROKER=redis_server.url, PYTHONPATH=f"{tmp_path}:{Path.cwd()}")

    done = run_python("-m", "taskapp", "-A", "routed", "doctor", "--adopt", "--force", env=env)

    if not creates:
        assert "queue 'emails' is not in task_queues" in done.stdout
        assert "add it to task_queues and run this again" in done.stdout
        return
    assert (done.returncode, redis_server.client.hlen("unacked")) == (0, 0)
    node = start_worker(
        tmp_path, redis_server.url, "-Q", "celery,emails", "-c", "1", app="routed", PROJ_BROKER=redis_server.url,
        PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    try:
        eventually(lambda: redis_server.client.lrange("mailed", 0, -1) == ["3", "1"] or None)
        listed = lambda: run_python("-m", "taskapp", "-A", "routed", "delayed", "list", "--json", env=env).stdout  # noqa: E731
        one = json.loads(eventually(listed))
        assert (one["id"], one["task"], one["queue"]) == (delayed.id, "routed.mail", "emails")
        run_python("-m", "taskapp", "-A", "routed", "delayed", "reschedule", delayed.id, "0", env=env, check=True)
        eventually(lambda: redis_server.client.llen("mailed") == 3)
    finally:
        node.close()


@pytest.mark.parametrize("backend", ["disabled", "disabled://"])
def test_an_app_that_keeps_no_results_on_purpose_is_told_what_it_has_set(backend: str) -> None:
    kept_nowhere = Celery("nowhere", broker="memory://", backend=backend, set_as_current=False)

    with pytest.raises(NotImplementedError, match=f"no results are kept: the app's result backend is '{backend}'; set"):
        kept_nowhere.AsyncResult("x").get(timeout=1)


def test_commands_without_an_app_say_so(redis_server: RedisServer) -> None:
    done = command(redis_server, "taskapp", "-A", "proj", "demo")

    assert (done.returncode, "`taskapp demo` works without an app" in done.stderr) == (2, True)


def test_two_projects_with_prefixes_share_a_redis(redis_server: RedisServer, tmp_path: Path) -> None:
    one = start_worker(
        tmp_path, redis_server.url, "-Q", "urgent,usual", app="proj", PROJ_BROKER=redis_server.url,
        PYTHONPATH=str(HERE), TASKAPP_KEY_PREFIX="one:",
    )  # fmt: skip
    try:
        apps = {
            prefix: Celery("c", broker=redis_server.url, set_as_current=False, taskapp_key_prefix=prefix)
            for prefix in ("one:", "two:")
        }
        results = {prefix: app.send_task("proj.add", (1, 2), queue="usual") for prefix, app in apps.items()}
        assert results["one:"].get(timeout=20) == 3
        assert results["two:"].state == "PENDING"
        eventually(lambda: redis_server.client.keys("two:*"))
    finally:
        one.close()


@pytest.mark.parametrize("pool", [(), ("-P", "prefork")], ids=["own", "prefork"])
def test_a_project_runs_over_rabbitmq(
    rabbitmq_url: str, redis_server: RedisServer, tmp_path: Path, pool: tuple[str, ...]
) -> None:
    node = start_worker(
        tmp_path, rabbitmq_url, "-Q", "urgent,usual,dynamic", *pool, app="proj", PROJ_BROKER=rabbitmq_url,
        PYTHONPATH=str(HERE), TASKAPP_RESULT_URL=redis_server.url,
    )  # fmt: skip
    try:
        client = Celery("client", broker=rabbitmq_url, backend=redis_server.url, set_as_current=False)
        assert client.send_task("proj.pay", (2,), queue="urgent").get(timeout=30)[:2] == [6, "urgent"]
        assert client.send_task("proj.elsewhere", queue="dynamic").get(timeout=30) == "dynamic"
        assert client.send_task("proj.flaky", queue="usual").get(timeout=30) == 2
    finally:
        node.close()
