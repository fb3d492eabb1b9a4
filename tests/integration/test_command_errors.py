"""What does not exist, or cannot be read, ends a command with a sentence that names it and the remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import RedisServer, clean_environment

QUEUES = "(queues: critical, high, default, low; add one with TASKAPP_QUEUES)"
NO_TASK = "no task with the id 'nosuch' is waiting, is running or has a result"
UNKNOWN = (
    ("celery call taskapp.add --queue nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("celery call taskapp.ad", "no task named 'taskapp.ad'; did you mean 'taskapp.add'?"),
    (
        "celery call taskapp.add --args [1,2] --serializer nosuch",
        "serializer is 'nosuch'; give one that",
    ),
    ("celery purge -f -Q nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("celery purge -f -Q default,critica", f"no queue named 'critica'; did you mean 'critical'? {QUEUES}"),
    ("celery purge -f -X nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("celery worker -Q nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("celery beat -S no.such:Scheduler", "no scheduler 'no.such:Scheduler': No module named 'no'; give it as"),
    ("celery result nosuch", NO_TASK),
    ("celery inspect -t 0.1 -d nosuch@host ping", "no reply from nosuch@host within 0.1 s; 'celery -A taskapp status'"),
    ("taskapp task show nosuch", NO_TASK),
    ("taskapp dead list --queue nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("taskapp dead purge --all --yes --queue nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("taskapp dead replay --all --queue nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("taskapp delayed list --queue nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("taskapp schedules show nosuch", "no schedule named 'nosuch'; see: taskapp schedules list"),
    ("taskapp health live --node nosuch", "no node named 'nosuch' runs here"),
)
URL = "it cannot be read as a URL"
UNREADABLE = (
    ("celery call taskapp.add --args [1,2]", "TASKAPP_BROKER_URL", "redis://host:port/0", URL),
    ("celery worker", "TASKAPP_BROKER_URL", "sentinel://host:port", URL),
    ("celery purge -f", "TASKAPP_RESULT_URL", "redis://host:port/0", URL),
    ("taskapp task show nosuch", "TASKAPP_RESULT_URL", "rediss://host/0?ssl_cert_reqs=no", "ssl_cert_reqs is one of"),
    ("taskapp dead list", "TASKAPP_BROKER_URL", "amqp://host:port//", URL),
)


def run(command: str, directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = command.split()
    module = ["celery", "-A", "taskapp"] if program == "celery" else [program]
    environment = clean_environment(TASKAPP_DATA_DIR=str(directory), COLUMNS="400", C_FORCE_ROOT="1", **variables)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *module, *arguments],
        env=environment, cwd=directory, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def assert_said(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    assert sentence in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize(("command", "sentence"), UNKNOWN)
def test_what_does_not_exist_is_named(command: str, sentence: str, tmp_path: Path, redis_server: RedisServer) -> None:
    assert_said(run(command, tmp_path, TASKAPP_BROKER_URL=redis_server.url), sentence)


@pytest.mark.parametrize(("command", "setting", "url", "why"), UNREADABLE)
def test_a_url_that_cannot_be_read_is_refused(command: str, setting: str, url: str, why: str, tmp_path: Path) -> None:
    variables = {"TASKAPP_BROKER_URL": "redis://127.0.0.1:1/0", setting: url}

    assert_said(run(command, tmp_path, **variables), f"setting {setting} cannot be '***': {why}")


@pytest.mark.parametrize("setting", ["TASKAPP_BROKER_URL", "TASKAPP_RESULT_URL"])
@pytest.mark.parametrize(
    "command", ["celery worker", "celery inspect ping", "taskapp dead list", "taskapp exporter", "taskapp up"]
)
def test_a_scheme_that_nothing_speaks_is_refused(command: str, setting: str, tmp_path: Path) -> None:
    done = run(command, tmp_path, **{"TASKAPP_BROKER_URL": "redis://127.0.0.1:1/0", setting: "http://x"})

    assert_said(done, f"setting {setting} cannot be '***': no ")
    assert "has the scheme http://; there are: " in done.stderr


@pytest.mark.parametrize("command", ["history status", "history run", "history search", "history show x", "up"])
def test_history_without_sqlalchemy_names_the_extra(command: str, tmp_path: Path) -> None:
    start = f"import sys; sys.modules['sqlalchemy'] = None; sys.argv = ['taskapp', *{command.split()}]; "
    environment = clean_environment(
        TASKAPP_DATA_DIR=str(tmp_path), TASKAPP_HISTORY="true", TASKAPP_BROKER_URL="redis://127.0.0.1:1/0"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + "from taskapp.cli.main import main; main()"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert_said(done, "taskapp: history needs the package sqlalchemy; install it with pip install 'taskapp[history]'")


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("celery call taskapp.add --args [1,2]", "the broker did not accept 'taskapp.add'"),
        ("celery purge -f", "a server cannot be reached: Error 111"),
        ("taskapp dead list", "the broker cannot be reached: Error 111"),
        ("taskapp task show nosuch", "Error 111 connecting to 127.0.0.1:1"),
    ],
)
def test_a_server_that_is_away_is_named(command: str, sentence: str, scheme: str, tmp_path: Path) -> None:
    assert_said(run(command, tmp_path, TASKAPP_BROKER_URL=f"{scheme}://127.0.0.1:1/0"), sentence)


def test_a_purge_of_queues_there_are_goes_on(tmp_path: Path, redis_server: RedisServer) -> None:
    called = run("celery call taskapp.add --args [1,2] --queue low", tmp_path, TASKAPP_BROKER_URL=redis_server.url)
    done = run("celery purge -f -Q low -X high", tmp_path, TASKAPP_BROKER_URL=redis_server.url)

    assert called.returncode == done.returncode == 0, called.stderr + done.stderr
    assert "Purged 1 message" in done.stdout
