"""Signed tasks and ``accept_content``: what nobody has vouched for does not run, on Redis and RabbitMQ."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import gethostname
from typing import Any

import kombu
import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from taskapp.engine.dead_letters import DeadLetter, DeadLetters
from taskapp.engine.envelope import seal, unseal
from taskapp.engine.settlement import COPY_HEADER
from taskapp.transport.codec import SENT_AT_HEADER, pack_task, unpack
from tests.support import Process, RedisServer, clean_environment, eventually, run_python, start_worker

PROLOGUE = """
from celery import chain, chord, group
from taskapp.celery import app
from tests.integration.signed import *
"""
FREE = {SENT_AT_HEADER, COPY_HEADER}
"""Headers that are replaced on the way."""


def write_keys(directory: Path, name: str = "signed") -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    names = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(names).issuer_name(names).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "key.pem").write_bytes(pem)
    for suffix in ("pem", "pem.trusted"):
        (directory / f"certificate.{suffix}").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def binary(server: RedisServer) -> redis.Redis:
    return redis.Redis(port=server.port)


class Site:
    """One app that signs, and its nodes."""

    def __init__(self, directory: Path, broker_url: str, result_url: str, **env: str) -> None:
        self.directory, self.broker_url = directory, broker_url
        self._env = {
            "TASKAPP_RESULT_URL": result_url, "TASKAPP_INCLUDE": "tests.integration.signed",
            "SIGNED_DIR": str(directory), **env,
        }  # fmt: skip
        self._started: list[Process] = []
        write_keys(directory)

    def node(self, *options: str, **env: str) -> Process:
        self._started.append(start_worker(self.directory, self.broker_url, *options, **{**self._env, **env}))
        return self._started[-1]

    def ask(self, code: str) -> str:
        """Run ``code`` as a client would; return what it prints."""
        done = self._run_python("-c", PROLOGUE + code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def command(self, line: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command as it is typed."""
        return self._run_python("-m", *line.split(), **env)

    def _run_python(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        settings = {"TASKAPP_BROKER_URL": self.broker_url, "TASKAPP_DATA_DIR": str(self.directory / "data")}
        environment = clean_environment(COLUMNS="400", **{**settings, **self._env, **env})
        environment["PYTHONPATH"] = str(Path.cwd())
        return run_python(*arguments, env=environment)

    @property
    def ran(self) -> list[str]:
        path = self.directory / "ran"
        return path.read_text().splitlines() if path.exists() else []

    def close(self) -> None:
        for process in self._started:
            process.close()


@pytest.fixture
def site(tmp_path: Path, redis_server: RedisServer) -> Iterator[Site]:
    site = Site(tmp_path, redis_server.url, redis_server.url)
    yield site
    site.close()


@pytest.fixture
def rabbit_site(tmp_path: Path, redis_server: RedisServer, rabbitmq_url: str) -> Iterator[Site]:
    site = Site(tmp_path, rabbitmq_url, redis_server.url)
    yield site
    site.ask("app.control.purge()")
    site.close()


def swapped(value: Any, name: str = "") -> Any:
    """Return another value that could be meant."""
    if name == "task":
        return "signed.other"
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, Mapping):
        return {**value, "x": 1}
    return [*value[1:], 1]


FULL = """
note.apply_async(
    ("once",), task_id="t1", expires=600, time_limit=60, headers={"tenant": "a"}, stamped_headers=["stamp"],
    stamp="s", reply_to="me", group_id="g", group_index=1, root_id="r", parent_id="p", shadow="s", origin="o",
    ignore_result=False, priority=3, queue="low",
)
"""


def forged(raw: bytes) -> dict[str, bytes]:
    """Return the signed task in ``raw`` with one thing changed, for everything there is."""
    envelope = unseal(raw)
    message = unpack(envelope)
    headers, properties = message["headers"], message["properties"]
    content = message["body"], message["content-type"], message["content-encoding"]

    def packed(headers: dict[str, Any], body: Any = content, **other: Any) -> bytes:
        whole = {**properties, **other}
        return pack_task(body, headers, 3, whole["correlation_id"], whole["reply_to"], "", "low")

    made = {
        f"header {name}": packed({**headers, name: swapped(value, name)})
        for name, value in headers.items()
        if name not in FREE
    }
    made |= {
        f"without {name}": packed({key: value for key, value in headers.items() if key != name})
        for name, value in headers.items()
        if name not in {*FREE, "task", "id"}
    }
    made |= {"more headers": packed({**headers, "taskapp_schedule": "nightly"}), "eta": packed({**headers, "eta": ""})}
    made |= {name: packed(headers, **{name: "other"}) for name in ("reply_to", "correlation_id")}
    made["body"] = packed(headers, (f"{content[0]}A", *content[1:]))
    made["content type"] = packed(headers, (content[0], "application/json", content[2]))
    made["no content type"] = packed(headers, ([["x"], {}, {}], None, None))
    made["envelope"] = seal("t1", "signed.other", 3, envelope.body)
    made["compression"] = packed({**headers, "compression": "gzip"})
    return made


def buried(letters: DeadLetters, count: int) -> list[DeadLetter]:
    return eventually(lambda: found if len(found := letters.find(limit=1_000)) >= count else [], 30.0)


def test_a_signed_task_with_anything_swapped_is_buried_and_does_not_run(
    site: Site, redis_server: RedisServer, letters: DeadLetters
) -> None:
    site.ask(FULL)
    client = binary(redis_server)
    key = next(name for name in client.keys("taskapp:{low}:ready:*") if client.type(name) == b"list")
    made = forged(client.lindex(key, 0))
    client.lpush(key, *made.values())
    node = site.node()

    found = buried(letters, len(made))

    assert site.ran == ["once"]
    assert node.returncode is None
    assert len(found) == len(made) > 45
    refused = [letter for letter in found if "signature" in letter.error or "content type" in letter.error]
    assert not any("BaseException" in letter.error for letter in found)
    assert sum("it was changed, or not signed with the key of 'signed " in letter.error for letter in found) > 30
    # What is no gzip is found out before anybody asks who signed it, as is a type nobody has.
    assert len(found) - len(refused) <= 4, [letter.error for letter in found if letter not in refused]
    # Nobody vouches for the id a forged one bears: its result is not touched.
    assert site.ask('print(app.AsyncResult("t1").get(timeout=10), app.AsyncResult("t1x").state)') == "once PENDING"


EVERYTHING = """
running = [
    note.delay("plain"), note.apply_async(("later",), countdown=0.5, expires=60), again.delay(),
    chain(note.si("a"), note.si("b")).delay(), chord([note.s(i) for i in range(3)])(total.s()),
    chain(group(note.s(4), note.s(5)), total.s()).delay(), note.apply_async(("packed",), compression="bzip2"),
    note.apply_async(("by name",), task_id="named", headers={"who": "me", "when": [1, None, 2.5]}),
    *note.submit_many([("many",)]), note.apply_async(("stamped",), stamped_headers=["x"], x="y"),
    note.delay({"__type__": "datetime", "__value__": "2020-01-01"}),
    chain(note.si("c"), note.si({"__type__": "uuid", "__value__": "x"})).delay(),
]
print([result.get(timeout=40) for result in running])
"""
LIKE_TYPES = [{"__type__": "datetime", "__value__": "2020-01-01"}, {"__type__": "uuid", "__value__": "x"}]
RESULTS = ["plain", "later", 1, "b", 3, 9, "packed", "by name", "many", "stamped", *LIKE_TYPES]


@pytest.mark.parametrize("events", ["json", "auth"])
def test_what_an_app_that_signs_sends_runs(site: Site, events: str) -> None:
    site._env["SIGNED_EVENTS"] = events
    site.node()

    assert site.ask(EVERYTHING) == str(RESULTS)
    assert site.ask("print(len(app.control.ping(timeout=5, limit=1)))") == "1"


@pytest.mark.quick("own")
@pytest.mark.parametrize("options", [(), ("-P", "prefork"), ("-P", "solo")], ids=["own", "prefork", "solo"])
def test_what_an_app_that_signs_sends_runs_over_rabbitmq(rabbit_site: Site, options: tuple[str, ...]) -> None:
    rabbit_site.node(*options)

    assert rabbit_site.ask(EVERYTHING) == str(RESULTS)
    assert rabbit_site.ask("print(len(app.control.ping(timeout=5, limit=1)))") == "1"


def test_over_rabbitmq_a_signed_task_with_anything_swapped_is_rejected(rabbit_site: Site) -> None:
    rabbit_site.ask(FULL)
    with kombu.Connection(rabbit_site.broker_url) as connection:
        message = kombu.Queue("low", channel=connection.channel()).get(no_ack=False)
        producer, body, headers = connection.Producer(), message.body, message.headers
        sent = {name: message.properties.get(name) for name in ("reply_to", "correlation_id")}
        count = 0

        def publish(headers: dict[str, Any], content_type: Any = message.content_type, **other: Any) -> None:
            producer.publish(
                body, "low", headers=headers, content_type=content_type, content_encoding="utf-8", **{**sent, **other}
            )

        for name, value in headers.items():
            if name not in FREE and name != "task":
                publish({**headers, name: swapped(value, name)})
                count += 1
        publish({**headers, "task": "signed.other"})
        for name in sent:
            publish(headers, **{name: "other"})
        publish(headers, "application/json")
        message.requeue()
    node = rabbit_site.node()

    eventually(lambda: node.output().count("unusable message to the dead letters") >= count + 4, 30.0)
    assert "BaseException" not in node.output()

    assert eventually(lambda: rabbit_site.ran) == ["once"]
    assert node.returncode is None


def test_a_dead_letter_that_is_replayed_is_taken(site: Site, letters: DeadLetters, redis_server: RedisServer) -> None:
    site.ask('app.send_task("signed.note", [1, 2, 3], task_id="bad", queue="low")')
    site.node()
    [letter] = buried(letters, 1)

    assert letters.replay(letter.queue, letter.number, "default")
    [again] = eventually(
        lambda: [one for one in letters.find() if one.number != letter.number or one.queue == "default"]
    )

    assert "TypeError" in again.error


def test_a_body_that_stock_celery_signed_is_taken_if_a_setting_says_so(site: Site, letters: DeadLetters) -> None:
    stock = """
from celery import Celery
stock = Celery("stock", broker=app.conf.broker_url, set_as_current=False)
stock.conf.task_serializer = "auth"
stock.send_task("signed.note", ["stock"], queue="low")
"""
    site.ask(stock)
    node = site.node()
    [letter] = buried(letters, 1)
    assert "TASKAPP_ACCEPT_BODY_SIGNATURES" in letter.error
    assert not site.ran
    node.close()

    site.node(TASKAPP_ACCEPT_BODY_SIGNATURES="true")
    site.ask(stock)

    assert eventually(lambda: site.ran) == ["stock"]


def test_what_was_noted_of_a_chord_is_not_sent_if_somebody_else_wrote_it(site: Site, redis_server: RedisServer) -> None:
    site.ask('chord([note.s(1).set(queue="low"), note.s(2).set(queue="low")])(total.s())')
    client = binary(redis_server)
    [key] = [name for name in client.scan_iter("*chord*") if client.type(name) == b"hash"]
    body = '{"body": {"task": "signed.other", "args": ["forged"], "kwargs": {}, "options": {}}, "header": null}'
    about = next(field for field, value in client.hgetall(key).items() if len(value) > 200 and field != b"finish")
    client.hset(key, about, body)
    node = site.node()

    eventually(lambda: "finish_chord" in node.output() and "raised unexpected" in node.output())

    assert sorted(site.ran) == ["1", "2"]


def test_a_command_that_is_not_signed_is_dropped(rabbit_site: Site) -> None:
    node = rabbit_site.node()
    with kombu.Connection(rabbit_site.broker_url) as connection:
        exchange = kombu.Exchange("celery.pidbox", type="fanout", durable=False)
        command = {"method": "shutdown", "arguments": {}, "destination": None}
        producer = connection.Producer()
        producer.publish(command, exchange=exchange, serializer="json")
    eventually(lambda: "unusable remote-control command" in node.output())

    assert rabbit_site.ask('print(note.delay("after").get(timeout=20))') == "after"
    assert node.returncode is None
    assert "onnection" not in node.output().partition("unusable remote-control command")[2]


NODE = f"w1@{gethostname()}"
COMMANDS = (
    "status -t 2",
    "inspect -t 20 -d {} ping",
    "control -t 20 -d {} rate_limit signed.note 10/m",
    "graph workers",
)


def test_nodes_that_sign_hear_what_is_typed(site: Site) -> None:
    site.node()
    eventually(lambda: site.ask("print(len(app.control.ping(timeout=2)))") == "1", 30.0)
    for line in COMMANDS:
        done = site.command(f"celery -A taskapp {line}".format(NODE))
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    called = site.command('celery -A taskapp call signed.note --args ["called"]')
    assert called.returncode == 0, called.stderr
    assert eventually(lambda: site.ran) == ["called"]
    assert "1 answer: " in site.command("taskapp doctor").stdout


def test_nodes_that_sign_hear_what_is_typed_over_rabbitmq(rabbit_site: Site) -> None:
    site = rabbit_site
    site.node()
    eventually(lambda: site.ask("print(len(app.control.ping(timeout=2)))") == "1", 30.0)

    assert site.command(f"celery -A taskapp inspect -t 20 -d {NODE} ping").returncode == 0
    assert site.command('celery -A taskapp call signed.note --args ["called"]').returncode == 0
    assert eventually(lambda: site.ran) == ["called"]


def test_who_does_not_sign_is_told_why_nobody_answers(site: Site) -> None:
    node = site.node()
    eventually(lambda: site.ask("print(len(app.control.ping(timeout=2)))") == "1", 30.0)

    said = site.command("taskapp doctor", TASKAPP_INCLUDE="").stdout
    missing = site.command("celery -A taskapp inspect ping", TASKAPP_INCLUDE="tests.nosuch")

    assert "1 alive by their leases, 0 answer" in said
    assert "signs messages (`app.setup_security()`)" in said
    assert "the module 'tests.nosuch', named in TASKAPP_INCLUDE, cannot be imported" in missing.stderr
    assert missing.returncode != 0
    assert node.returncode is None


def test_without_cryptography_the_package_is_named(site: Site) -> None:
    without = """
import sys
from taskapp.app import application
find_spec = application.find_spec
application.find_spec = lambda name: None if name == "cryptography" else find_spec(name)
sys.argv = ["celery", "-A", "taskapp", {command}]
from celery.__main__ import main
main()
"""
    for command in ('"worker"', '"inspect", "ping"'):
        done = site._run_python("-c", without.format(command=command))
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1] == (
            "Error: app.setup_security() needs the package cryptography; install it with pip install 'taskapp[auth]'"
        )
        assert "Traceback" not in done.stderr
