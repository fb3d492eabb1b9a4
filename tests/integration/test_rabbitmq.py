"""RabbitMQ as broker, results elsewhere: a run's result is stored before its follow-ups go out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration import rabbitmq
from tests.support import Process, RedisServer, clean_environment, eventually, run_python, start_worker

pytestmark = pytest.mark.skipif(not rabbitmq.is_installed(), reason="rabbitmq-server is not installed")

Ask = Callable[[str], str]
PROLOGUE = """
from pathlib import Path
from celery import chain, chord, group
from taskapp.celery import app
from tests.integration.follow_ups import *
"""


SCRAPED = """
from taskapp.monitor.exporter import BrokerCollector
from taskapp.settings import get_settings
for family in BrokerCollector(app, get_settings()).collect():
    for sample in family.samples:
        print((sample.name, sample.labels.get("type", ""), int(sample.value)))
"""


@pytest.fixture(params=["redis", "sqlite"])
def result_url(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer) -> str:
    if request.param == "redis":
        return redis_server.url
    return f"db+sqlite:///{tmp_path}/results.sqlite"


class Site:
    """Workers and clients of one broker and one result store."""

    def __init__(self, directory: Path, broker_url: str, result_url: str) -> None:
        self._directory, self._broker_url = directory, broker_url
        include = "tests.integration.follow_ups,tests.integration.foreign_bases"
        self._env = {"TASKAPP_RESULT_URL": result_url, "TASKAPP_INCLUDE": include}
        self._started: list[Process] = []

    def worker(self, *options: str, name: str = "w1") -> Process:
        if "sqlite" in self._env["TASKAPP_RESULT_URL"]:
            options = ("-P", "solo")  # writers of one SQLite file wait for each other for longer than they wait
        self._started.append(start_worker(self._directory, self._broker_url, *options, name=name, **self._env))
        return self._started[-1]

    def ask(self, code: str) -> str:
        """Run ``code`` as a client would; return what it prints."""
        env = clean_environment(TASKAPP_BROKER_URL=self._broker_url, TASKAPP_DATA_DIR=str(self._directory), **self._env)
        env["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), env.get("PYTHONPATH", "")])
        done = run_python("-c", PROLOGUE + code, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def close(self) -> None:
        self.ask("app.control.purge()")
        for process in self._started:
            process.close()


@pytest.fixture
def site(tmp_path: Path, rabbitmq_url: str, result_url: str) -> Iterator[Site]:
    site = Site(tmp_path, rabbitmq_url, result_url)
    yield site
    site.close()


@pytest.mark.quick("redis-own", "sqlite-prefork")
@pytest.mark.parametrize("options", [(), ("-P", "prefork")], ids=["own", "prefork"])
def test_a_chain_a_chord_and_a_retry_come_to_their_end(site: Site, options: tuple[str, ...], tmp_path: Path) -> None:
    site.worker(*options)

    assert_canvas_works(site, tmp_path / "runs")


def assert_canvas_works(site: Site, runs: Path) -> None:
    results = site.ask(f"""
header = [add_in_child.s(i, i) for i in range(2)] + [add_on_loop.s(3, 3), add.s(4, 4)]
running = [
    (add.s(1, 2) | add_on_loop.s(3) | add_in_child.s(4) | state_of_parent.s()).delay(),
    chord(header)(total.s()),
    (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s()).delay(),
    note_and_retry.delay({str(runs)!r}),
]
print([result.get(timeout=40) for result in running])
""")

    assert results == "['SUCCESS', 16, 7, 2]"
    assert runs.read_text().split() == ["run"] * 3


@pytest.mark.quick("redis")
def test_coroutines_submit_each_canvas_and_await_it(site: Site) -> None:
    site.worker()

    printed = site.ask("""
import asyncio
from taskapp import chain, chord, group

async def main():
    submitted = [
        await add.s(1, 2).aapply_async(), await chain(add.s(1, 1), add_on_loop.s(1)).aapply_async(priority=3),
        await (add.s(0, 1) | add.s(1) | add.s(1)).adelay(), await chord([add.s(1, 0), add.s(1, 1)], total.s()).adelay(),
        await group(add.s(n, 0) for n in range(3)).aapply_async(),
    ]
    ticks = 0
    waiting = asyncio.gather(*submitted)
    while not waiting.done():
        await asyncio.sleep(0)
        ticks += 1
    print(await waiting, ticks > 1)

asyncio.run(main())
""")

    assert printed == "[3, 3, 3, 3, [0, 1, 2]] True"


@pytest.mark.quick("redis-own")
@pytest.mark.parametrize("options", [(), ("-P", "prefork")], ids=["own", "prefork"])
def test_tasks_of_foreign_bases_run(site: Site, options: tuple[str, ...], result_url: str) -> None:
    if not result_url.startswith("redis"):
        pytest.skip("these tasks note their hooks in Redis")
    site.worker(*options)

    done = site.ask("""
from tests.integration.foreign_bases import RUN_ALIKE
tasks = [app.tasks[name] for name in RUN_ALIKE]
running = [(task.delay("retry", 1), (task.si("return", 2) | task.si("return", 3)).delay()) for task in tasks]
gathered = [app.tasks["foreign_batches.gather"].delay(n) for n in range(4)]
print([(one.get(timeout=40)[2], two.get(timeout=40)[0]) for one, two in running] == [(2, 3)] * len(tasks))
print([one.get(timeout=40)[0] for one in gathered])
""")

    assert done.splitlines() == ["True", "[0, 1, 2, 3]"]


@pytest.mark.quick("redis-own")
@pytest.mark.parametrize("options", [(), ("-P", "prefork")], ids=["own", "prefork"])
def test_a_result_that_is_too_large_is_neither_stored_nor_sent_on(
    site: Site, options: tuple[str, ...], tmp_path: Path
) -> None:
    site.worker(*options)
    followed = tmp_path / "followed"

    said = site.ask(f"""
chained = (return_text.s(17 << 20) | note.s({str(followed)!r})).delay()
whole = chord([return_text.s(17 << 20), add.s(1, 1)])(total.s())
print([type(result.get(timeout=40, propagate=False)).__name__ for result in (chained.parent, whole)])
print(str(chained.parent.result))
print(len(return_text.delay(1 << 20).get(timeout=40)))
""").splitlines()

    assert said[0] == "['ResultTooLarge', 'ChordError']"
    assert said[1].startswith("the result takes 17,825,79")
    assert "TASKAPP_MAX_RESULT_BYTES" in said[1]
    assert said[2] == "1048576"
    assert not followed.exists()


def test_a_retry_has_no_other_parent_than_its_first_run(site: Site) -> None:
    site.worker()

    said = site.ask("""
result = parents_of_retries.delay()
chained = (add.si(1, 1) | parents_of_retries.si()).delay()
print(result.get(timeout=40) == [result.id, result.id, None])
print(chained.get(timeout=40) == [chained.id, chained.parent.id, chained.parent.id])
""")

    assert said.split() == ["True", "True"]


def test_properties_of_a_message_reach_the_task(site: Site) -> None:
    site.worker()

    seen = site.ask("""
given = {"message_id": "m-1", "app_id": "shop", "user_id": "guest", "type": "order", "timestamp": 17}
seen = properties.apply_async(**given, expiration=30).get(timeout=20)
print({name: seen.get(name) for name in given} == given, seen["expiration"])
""")

    assert seen == "True 30000"


@pytest.mark.parametrize(
    ("exchange", "declared"),
    [("shop", True), ("shop", False), ("amq.topic", False)],
    ids=["declared", "not-declared", "of the broker"],
)
def test_a_task_that_no_queue_would_get_is_refused_where_it_is_submitted(
    site: Site, exchange: str, declared: bool
) -> None:
    said = site.ask(f"""
from kombu import Exchange, Queue
from taskapp.errors.publishing import Unroutable

if {declared}:
    app.amqp.queues.add(Queue("shop", Exchange("shop"), routing_key="pay"))
    print(app.send_task("x", exchange="{exchange}", routing_key="pay").id is not None)
for _ in range(2):
    try:
        app.send_task("x", exchange="{exchange}", routing_key="nosuch")
    except Unroutable as error:
        print(error)
print(add.delay(1, 2).id is not None)
""")

    refused = f"no queue is bound to the exchange '{exchange}' with the routing key 'nosuch': the task would be lost"
    lines = said.splitlines()
    assert [line == "True" or line.startswith(refused) for line in lines] == [True] * (3 + declared), said


def test_what_is_no_priority_is_refused(site: Site) -> None:
    said = site.ask("""
def refused(submit):
    try:
        submit()
    except Exception as error:
        return str(error).partition("submitted: ")[2]
for bad in "high", 11, -3, True, 1.0:
    print({
        refused(lambda: add.apply_async((1, 2), priority=bad)),
        refused(lambda: app.send_task(add.name, (1, 2), priority=bad)),
        refused(lambda: add.s(1, 2).set(priority=bad).delay()),
        refused(lambda: chord([add.s(1, 1).set(priority=bad)])(total.s())),
    } == {f"priority is {bad!r}; use an integer from 0 to 9, where 9 runs first"})
app.conf.task_routes = ({add.name: {"queue": "low", "priority": 10}},)
app.amqp.flush_routes()
app.amqp.router = app.amqp.Router()
print(refused(lambda: add.delay(1, 2)))
""")

    assert said.splitlines() == ["True"] * 5 + ["priority is 10; use an integer from 0 to 9, where 9 runs first"]


def test_a_task_of_others_with_a_higher_priority_is_retried(site: Site) -> None:
    site.worker()

    said = site.ask("""
message = app.amqp.create_task_message("of-others", retry_once.name, [], {})
with app.producer_or_acquire() as producer:
    producer.publish(
        message.body, headers=message.headers, exchange="default", routing_key="default", priority=200,
        serializer="json", correlation_id="of-others",
    )
print(app.AsyncResult("of-others").get(timeout=40)[0])
""")

    assert said == "1"


def test_a_dict_that_looks_like_a_type_arrives_and_returns_as_a_dict(site: Site) -> None:
    site.worker()

    said = site.ask("""
kind = {"__type__": "decimal", "__value__": "x"}
print((return_it.s(kind) | return_it.s()).delay().get(timeout=40) == kind)
print(chord([return_it.s(kind), return_it.s([kind])])(return_it.s()).get(timeout=40) == [kind, [kind]])
""")

    assert said.split() == ["True", "True"]


def test_what_runs_is_counted_in_the_redis_of_results(site: Site, result_url: str, tmp_path: Path) -> None:
    if not result_url.startswith("redis"):
        assert "'taskapp_broker_up', '', 1" in site.ask(SCRAPED)
        return
    site.worker()
    assert_canvas_works(site, tmp_path / "runs")
    site.ask("print([add.delay(1, 2).get(timeout=20) for _ in range(20)])")

    def counted() -> list[str]:
        wanted = "tasks_completed_total", "tasks_failed_total", "tasks_retried_total", "task_queue_wait_seconds_count"
        return [line for line in site.ask(SCRAPED).splitlines() if line.split("'")[1].endswith(wanted)]

    name = "tests.integration.follow_ups"
    # 20, and five in the canvas.
    eventually(lambda: f"('taskapp_tasks_completed_total', '{name}.add', 25)" in counted(), 30)
    assert f"('taskapp_tasks_retried_total', '{name}.note_and_retry', 2)" in counted()
    assert f"('taskapp_tasks_failed_total', '{name}.add', 0)" in counted()
    assert any(line.startswith("('taskapp_task_queue_wait_seconds_count'") for line in counted())


def test_a_chord_whose_part_fails_fails_and_calls_its_errback(site: Site, tmp_path: Path) -> None:
    site.worker()
    errors = tmp_path / "errors"

    state = site.ask(f"""
body = total.s().on_error(note.si("failed", {str(errors)!r}))
result = chord([add.s(1, 1), fail.s("no")])(body)
error = result.get(timeout=40, propagate=False)
print(result.state, type(error).__name__)
""")

    assert state == "FAILURE ChordError"
    assert eventually(lambda: errors.exists() and errors.read_text().split()) == ["failed"]


def test_what_was_to_follow_a_success_does_not_follow_a_result_no_store_takes(site: Site, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    site.worker()

    state = site.ask(f"""
link, errback = note.si("success", {str(lines)!r}), note.si("failure", {str(lines)!r})
result = return_what_no_store_takes.apply_async(link=link, link_error=errback)
result.get(timeout=20, propagate=False)
print(result.state)
note.delay("later", {str(lines)!r})
""")

    assert state == "FAILURE"
    eventually(lambda: lines.exists() and "later" in lines.read_text())
    assert sorted(lines.read_text().split()) == ["failure", "later"]


@pytest.mark.quick("redis-own")
@pytest.mark.parametrize("options", [(), ("-P", "prefork"), ("-P", "solo")], ids=["own", "prefork", "solo"])
@pytest.mark.parametrize("result_url", ["redis"], indirect=True)
def test_nothing_follows_a_run_whose_result_was_not_stored(
    site: Site, redis_server: RedisServer, tmp_path: Path, options: tuple[str, ...]
) -> None:
    lines = tmp_path / "lines"
    redis_server.freeze()
    killed = site.worker(*options)
    site.ask(f"(note.si('first', {str(lines)!r}) | note.si('second', {str(lines)!r})).apply_async()")
    eventually(lambda: lines.exists() and lines.read_text())

    killed.kill()
    redis_server.thaw()
    site.worker(*options, name="w2")

    eventually(lambda: "second" in lines.read_text())
    site.ask("add.delay(1, 1).get(timeout=20)")
    assert lines.read_text().split() == ["first", "first", "second"]


FORGED = """
import uuid
from kombu import Connection

def send(body=([], {}, None), **headers):
    task_id = str(uuid.uuid4())
    known = {"lang": "py", "task": add.name, "id": task_id, "root_id": task_id, "retries": 0}
    with app.connection_for_write() as connection:
        connection.Producer().publish(body, "default", headers={**known, **headers}, serializer="json")
    return task_id

def outcome(task_id):
    error = app.AsyncResult(task_id).get(timeout=20, propagate=False)
    return f"{type(error).__name__}: {error}"
"""


def test_headers_nobody_can_mean_end_no_node_and_their_tasks_fail_on_rabbitmq(site: Site) -> None:
    node = site.worker()
    told = site.ask(
        FORGED + "odd = [dict(timelimit=[1, 'x']), dict(taskapp_schedule=[]), dict(get=1), dict(retries=-1),"
        "dict(stamps=5), dict(group=[1]), dict(eta=5), dict(expires=[]), dict(shadow={})]\n"
        "for task_id in [send(**headers) for headers in odd]: print(outcome(task_id))\n"
        "print(outcome(send(task='nobody.has_it')))\n"
        "print(outcome(send(body='no arguments')), outcome(send(body=[1, 2, 3])))\n"
        "class NoUuid: pass\n"
        "from kombu.utils.json import register_type\n"
        "register_type(NoUuid, 'uuid', lambda _: 'none', str)\n"
        "print(outcome(add.delay(NoUuid(), 1).id))\n"
        "send(task=None), send(id=None), send(task=5), send(id=[])\n"
        "print(add.delay(1, 2).get(timeout=20))\n"
    ).splitlines()

    assert all("InvalidTaskError: header" in line for line in told[:9]), told
    assert "NotRegistered" in told[9]
    assert "Error" in told[10]
    assert "cannot be decoded" in told[11]
    assert told[12] == "3"
    assert node.returncode is None
