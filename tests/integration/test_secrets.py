"""A canary for a password: it is searched in all that a deployment prints, logs, answers and runs as."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from tests.support import Node, Process, answers, clean_environment, eventually, free_port, run_python

pytestmark = pytest.mark.timeout(180)

CANARY = "c4naryXq"
PAGES = (
    "/", "/workers", "/tasks", "/broker", "/overview", "/overview/data", "/nodes/data", "/worker/w1@{host}", "/nothing",
    "/api/workers?refresh=1", "/api/queues/length", "/metrics", "/api/task/result/x", "/dead-letters/data",
)  # fmt: skip
COMMANDS = (
    ("celery", "-A", "taskapp", "report"), ("celery", "-A", "taskapp", "inspect", "conf"),
    ("celery", "-A", "taskapp", "inspect", "stats"), ("celery", "-A", "taskapp", "inspect", "report"),
    ("taskapp", "doctor"), ("taskapp", "doctor", "--json"), ("taskapp", "history", "status"),
    ("taskapp", "history", "search"), ("taskapp", "redis", "status"), ("taskapp", "dead", "list"),
    ("taskapp", "schedules", "list"), ("taskapp", "task", "show", "x"),
)  # fmt: skip


@pytest.fixture
def guarded_redis(tmp_path: Path) -> Iterator[int]:
    """The port of a Redis that wants the canary."""
    port = free_port()
    argv = [
        "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path),
        "--requirepass", f"redis-{CANARY}",
    ]  # fmt: skip
    process = Process(argv, tmp_path / "redis.log", clean_environment())
    client = redis.Redis(port=port, password=f"redis-{CANARY}")
    eventually(lambda: answers(client))
    yield port
    process.close()


def environment_of(port: int, directory: Path) -> dict[str, str]:
    return clean_environment(
        TASKAPP_BROKER_URL=f"redis://:redis-{CANARY}@127.0.0.1:{port}/0", TASKAPP_DATA_DIR=str(directory / "data"),
        TASKAPP_HISTORY_URL=f"postgresql://taskapp:sql-{CANARY}@127.0.0.1:1/taskapp?application_name={CANARY}",
        TASKAPP_SMTP_HOST="127.0.0.1", TASKAPP_SMTP_PORT="1", TASKAPP_SMTP_SECURITY="starttls",
        TASKAPP_SMTP_USERNAME="ada", TASKAPP_SMTP_PASSWORD=f"smtp-{CANARY}", TASKAPP_CANARY_SECONDS="1",
        FLOWER_BASIC_AUTH=f"ada:flower-{CANARY}", FLOWER_COOKIE_SECRET=f"cookie-{CANARY}", PYTHONPATH=str(Path.cwd()),
    )  # fmt: skip


def run(environment: dict[str, str], *arguments: str) -> str:
    done = run_python("-m", *arguments, env=environment)
    return done.stdout + done.stderr


def page(url: str) -> str:
    request = urllib.request.Request(url)
    request.add_header("Authorization", "Basic " + b64encode(f"ada:flower-{CANARY}".encode()).decode())
    try:
        return urllib.request.urlopen(request, timeout=20).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_no_password_is_shown_anywhere(guarded_redis: int, tmp_path: Path) -> None:
    environment, port, metrics = environment_of(guarded_redis, tmp_path), free_port(), free_port()
    celery = ("celery", "-A", "taskapp")
    commands = {
        "worker": (*celery, "worker", "-n", "w1@%h", "-c", "1", "-l", "DEBUG"),
        "beat": (*celery, "beat", "-l", "DEBUG"),
        "flower": (*celery, "flower", f"--port={port}", "--debug", "--logging=debug"),
        "exporter": ("taskapp", "exporter", "--port", str(metrics)),
        "history": ("taskapp", "history", "run"),
    }
    processes = {
        name: Node([sys.executable, "-m", *argv], tmp_path / f"{name}.log", environment, tmp_path)
        for name, argv in commands.items()
    }
    seen: dict[str, str] = {}
    message = "dict(to=['a@b.example'], subject='s', text='t')"
    mail = f"from taskapp.tasks import send_email; send_email.delay({message}).get(timeout=9)"
    try:
        for name, ready in (("worker", " ready."), ("flower", "Visit me"), ("exporter", "metrics at")):
            eventually(lambda p=processes[name], r=ready: r in p.output(), within_seconds=60)
        eventually(lambda: "taskapp.canary" in processes["worker"].output(), within_seconds=30)
        host = processes["worker"].output().partition("w1@")[2].split()[0]
        seen |= {path: page(f"http://127.0.0.1:{port}{path.format(host=host)}") for path in PAGES}
        seen["exporter's page"] = page(f"http://127.0.0.1:{metrics}/metrics")
        seen |= {" ".join(argv): run(environment, *argv) for argv in COMMANDS}
        seen["mail"] = run_python("-c", mail, env=environment).stderr
        seen["processes"] = str([psutil.Process(process.pid).cmdline() for process in processes.values()])
    finally:
        for process in processes.values():
            process.close()
    seen |= {f"log of {name}": process.output() for name, process in processes.items()}

    assert "broker" in seen["/api/workers?refresh=1"], "the node's configuration is among what was looked at"
    assert "broker_url" in seen["celery -A taskapp report"]
    assert "broker_url" in seen["celery -A taskapp inspect conf"]
    assert {name: text[max(text.find(CANARY) - 200, 0) :][:300] for name, text in seen.items() if CANARY in text} == {}


@pytest.mark.parametrize("broken", ["redis:/:{}@host", "redis://:{}/x@127.0.0.1:1/0", "redis://:{}#@127.0.0.1:1/0"])
@pytest.mark.parametrize("argv", [COMMANDS[0], ("celery", "-A", "taskapp", "worker"), ("taskapp", "doctor")])
def test_a_url_that_cannot_be_read_is_not_quoted(broken: str, argv: tuple[str, ...], tmp_path: Path) -> None:
    environment = clean_environment(
        TASKAPP_BROKER_URL=broken.format(CANARY), TASKAPP_DATA_DIR=str(tmp_path), PYTHONPATH=str(Path.cwd())
    )

    printed = run(environment, *argv)

    assert "TASKAPP_BROKER_URL cannot be '***'" in printed
    assert CANARY not in printed
    assert "Traceback" not in printed
