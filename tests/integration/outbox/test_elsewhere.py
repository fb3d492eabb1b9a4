"""The outbox with other brokers, signed tasks, an app of your own, and inside a running task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskapp.outbox.sql_store import SqlStore
from taskapp.redis.keys import Keys
from tests.integration import rabbitmq
from tests.integration.test_signing import write_keys
from tests.support import Process, RedisServer, clean_environment, eventually, run_python, start_worker

PROLOGUE = """
import sys, time
from sqlalchemy.orm import Session
from taskapp.outbox import promptly
from taskapp.outbox.relay import Relay
from taskapp.outbox.sql_store import SqlStore
from taskapp.outbox.sqlalchemy import with_session

store = SqlStore.at("{url}")
session = Session(store.engine)
outbox = with_session(session)
"""
OWN = """
from taskapp import Celery

app = Celery("shop", broker="{broker}", backend="{broker}", include=["shop"])

@app.task
def add(x, y):
    return x + y
"""
IN_A_TASK = """
from celery import shared_task
from sqlalchemy.orm import Session
from taskapp.outbox.sql_store import SqlStore
from taskapp.outbox.sqlalchemy import with_session
from taskapp.tasks import add

store = SqlStore.at("{url}")

@shared_task(bind=True, max_retries=0)
def pay(self, commits, fails):
    with Session(store.engine) as session:
        sent = with_session(session).delay(add, 2, 3)
        session.commit() if commits else session.rollback()
    if fails:
        raise ValueError("after the transaction")
    return sent.id

@shared_task
async def pay_async():
    return pay.run(True, False)
"""


class Client:
    """A client process with an outbox, and nodes."""

    def __init__(self, directory: Path, broker_url: str, result_url: str, **env: str) -> None:
        self.directory, self.broker_url = directory, broker_url
        self.store = SqlStore.at(f"sqlite:///{directory}/shop.sqlite")
        self.store.create()
        self.url = self.store.engine.url.render_as_string()
        self.env = {"TASKAPP_RESULT_URL": result_url, "PYTHONPATH": f"{directory}:{Path.cwd()}", **env}
        self._started: list[Process] = []

    def node(self, **options: str) -> Process:
        self._started.append(start_worker(self.directory, self.broker_url, **self.env, **options))
        return self._started[-1]

    def ask(self, code: str, timeout: float = 60) -> list[str]:
        env = clean_environment(TASKAPP_BROKER_URL=self.broker_url, TASKAPP_DATA_DIR=str(self.directory), **self.env)
        done = run_python("-c", PROLOGUE.format(url=self.url) + code, env=env, cwd=self.directory, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    def close(self) -> None:
        for process in self._started:
            process.close()
        self.store.engine.dispose()


Start = Callable[..., Client]


@pytest.fixture
def client(tmp_path: Path, redis_server: RedisServer) -> Iterator[Start]:
    started: list[Client] = []

    def start(broker_url: str = "", **env: str) -> Client:
        started.append(Client(tmp_path, broker_url or redis_server.url, redis_server.url, **env))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbitmq.RabbitMQ]:
    if not rabbitmq.is_installed():
        pytest.skip("rabbitmq-server is not installed")
    server = rabbitmq.RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    yield server
    server.close()


RABBIT = """
from celery import chain
from taskapp.celery import app
from taskapp.tasks import add
"""


def test_rabbitmq_gets_the_tasks_of_committed_transactions(client: Start, broker: rabbitmq.RabbitMQ) -> None:
    one = client(broker.url)
    one.node()

    said = one.ask(RABBIT + """
outbox.delay(add, 9, 9)
session.rollback()
sent = [outbox.delay(add, 2, 3), outbox.apply_async(chain(add.s(1, 1), add.s(4)), priority=3),
        outbox.apply_async(add, (1, 2), countdown=0.5, expires=60, compression="zlib")]
session.commit()
print([each.get(timeout=30) for each in sent])
until = time.monotonic() + 20
while store.backlog().waiting and time.monotonic() < until: time.sleep(0.05)
print(store.backlog().waiting)
""")  # fmt: skip

    assert said == ["[5, 6, 3]", "0"]


@pytest.mark.slow
def test_rabbitmq_that_is_away_gets_them_later(client: Start, broker: rabbitmq.RabbitMQ) -> None:
    one = client(broker.url)
    broker.stop()
    said = one.ask(RABBIT + """
began = time.monotonic()
sent = [outbox.delay(add, number, number).id for number in range(3)]
session.commit()
print(time.monotonic() - began < 2)
print(Relay(app, store).drain(), store.backlog().waiting)
""")  # fmt: skip
    assert said == ["True", "0 3"]
    broker.start()

    assert one.ask(RABBIT + "print(Relay(app, store).drain())") == ["3"]
    one.node()
    eventually(lambda: "succeeded" in (one.directory / "w1.log").read_text())


def test_what_rabbitmq_refuses_is_marked(client: Start, broker: rabbitmq.RabbitMQ) -> None:
    said = client(broker.url, TASKAPP_QUEUES="default,other").ask(RABBIT + """
from kombu import Connection
promptly.PromptRelay.note = lambda *_: None
with Connection(app.conf.broker_url) as connection:
    connection.default_channel.queue_declare("other", durable=False, auto_delete=False)
bad = outbox.apply_async(add, (1, 2), queue="other")
good = outbox.delay(add, 1, 2)
session.commit()
print(Relay(app, store).drain())
[row] = store.rows(refused_only=False, limit=5)
print(row.id == bad.id, row.attempts, row.error)
""")  # fmt: skip

    assert said[0] == "1"
    assert said[1].startswith("True 1 RefusedByBroker: the broker refused it: ")


@pytest.mark.parametrize("events", ["json", "auth"])
def test_signed_tasks_are_signed_when_they_are_submitted(client: Start, tmp_path: Path, events: str) -> None:
    write_keys(tmp_path)
    one = client(TASKAPP_INCLUDE="tests.integration.signed", SIGNED_DIR=str(tmp_path), SIGNED_EVENTS=events)
    one.node()

    said = one.ask("""
from celery import chain
from tests.integration.signed import *
sent = [outbox.delay(note, "one"), outbox.apply_async(note, ("two",), expires=60, compression="zlib"),
        outbox.apply_async(chain(note.s("three"), note.si("four")))]
session.commit()
print([each.get(timeout=30) for each in sent])
""")

    assert said == ["['one', 'two', 'four']"]


def test_an_app_of_your_own_has_an_outbox(client: Start, tmp_path: Path, redis_server: RedisServer) -> None:
    (tmp_path / "shop.py").write_text(OWN.format(broker=redis_server.url))
    one = client()
    said = one.ask("""
from shop import add, app
promptly.PromptRelay.note = lambda *_: None
sent = [outbox.delay(add, 2, 3), with_session(session, app).apply_async("shop.add", (3, 4), queue="new")]
session.commit()
print(store.backlog().waiting)
""")
    assert said == ["2"]

    env = clean_environment(PYTHONPATH=f"{tmp_path}:{Path.cwd()}", TASKAPP_DATA_DIR=str(tmp_path))
    done = run_python("-m", "taskapp", "-A", "shop", "outbox", "run", "--once", "--url", one.url, env=env, cwd=tmp_path)
    assert done.stdout == "queued 2 tasks\n", done.stderr
    assert redis_server.client.llen(Keys().ready("celery")) + redis_server.client.llen(Keys().ready("default")) == 1
    assert redis_server.client.llen(Keys().ready("new")) == 1


def test_nodes_relay_the_outbox_of_the_settings(client: Start, tmp_path: Path) -> None:
    one = client(TASKAPP_OUTBOX_URL=f"sqlite:///{tmp_path}/shop.sqlite")
    with one.store.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE taskapp_outbox")
    node = one.node()
    eventually(lambda: "this node relays no outbox: the database" in node.output())
    node.terminate()
    one.store.create()
    node = one.node(name="w2")

    said = one.ask("""
from taskapp.celery import app
from taskapp.tasks import add
promptly.PromptRelay.note = lambda *_: None
sent = outbox.delay(add, 2, 3)
session.commit()
print(sent.get(timeout=30))
from taskapp.monitor.exporter import BrokerCollector
def read():
    families = {family.name: family.samples for family in BrokerCollector(app, app.settings).collect()}
    return [families[f"taskapp_outbox_{name}"][0].value for name in ("waiting", "oldest_seconds", "refused")]
until = time.monotonic() + 20
while store.backlog().waiting and time.monotonic() < until: time.sleep(0.05)
print(read())
""")

    assert said == ["5", "[0, 0.0, 0]"]
    assert node.terminate() == 0


def test_a_scrape_goes_on_without_the_outbox(client: Start) -> None:
    said = client(TASKAPP_OUTBOX_URL="postgresql://a:secret@127.0.0.1:1/x").ask("""
import logging
logging.basicConfig(stream=sys.stdout, format="%(message)s", force=True)
from taskapp.celery import app
from taskapp.monitor.exporter import BrokerCollector
collector = BrokerCollector(app, app.settings)
for _ in range(2):
    families = {family.name: family.samples for family in collector.collect()}
print(families["taskapp_broker_up"][0].value, families["taskapp_outbox_waiting"])
""")

    assert said[0].startswith("cannot read the outbox: the outbox at 'postgresql://a:***@127.0.0.1:1/x' cannot be used")
    assert said[1:] == ["1 []"]


def test_a_task_submits_in_its_own_transaction(client: Start, tmp_path: Path) -> None:
    one = client(TASKAPP_INCLUDE="paying")
    (tmp_path / "paying.py").write_text(IN_A_TASK.format(url=one.url))
    one.node()

    said = one.ask("""
from paying import add, pay, pay_async
first, second = pay.delay(True, False), pay_async.delay()
print([add.AsyncResult(each.get(timeout=30)).get(timeout=30) for each in (first, second)])
for arguments in ((False, False), (True, True), (True, False)):
    done = pay.delay(*arguments)
    done.get(timeout=30, propagate=False)
    print(done.state, [child.get(timeout=20) for child in done.children or ()])
""")

    assert said == ["[5, 5]", "SUCCESS []", "FAILURE [5]", "SUCCESS [5]"]
