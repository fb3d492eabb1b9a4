"""Servers that are one of several, want a password of their own, or let a user do only some things."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Process, RedisServer, clean_environment, eventually, free_port, run_python, start_worker

SUBMIT = "from taskapp.tasks import add; print(add.delay(2, 3).get(timeout=20))"
SENTINEL_MODULE = """
    from taskapp.celery import app

    wanted = {"sentinel_kwargs": {"password": "sentinels"}}
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **wanted}
    app.conf.result_backend_transport_options = {**app.conf.result_backend_transport_options, **wanted}
"""


def run(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_python(*arguments, env=clean_environment(**variables), cwd=cwd)


def test_a_dead_server_in_front_of_one_that_lives_is_passed_over(tmp_path: Path, redis_server: RedisServer) -> None:
    broker_url = f"redis://127.0.0.1:{free_port()}/0;{redis_server.url}"
    worker = start_worker(tmp_path, broker_url, TASKAPP_RESULT_URL=redis_server.url)
    try:
        variables = {"TASKAPP_BROKER_URL": broker_url, "TASKAPP_RESULT_URL": redis_server.url}
        done = run("-c", SUBMIT, **variables)
        assert done.stdout == "5\n", done.stderr
        assert "Traceback" not in worker.output()
        doctor = run("-m", "taskapp", "doctor", **variables)
        assert "does not answer" in doctor.stdout
        assert "it answers" in doctor.stdout
    finally:
        worker.close()


@pytest.fixture
def narrow(redis_server: RedisServer) -> Iterator[str]:
    """The URL of a user who may do nothing dangerous."""
    rules = ("on", ">secret", "~*", "&*", "+@all", "-@dangerous")
    redis_server.client.execute_command("ACL", "SETUSER", "narrow", "reset", *rules)
    yield redis_server.url.replace("redis://", "redis://narrow:secret@")
    redis_server.client.acl_deluser("narrow")


def test_a_node_works_for_a_user_who_may_do_nothing_dangerous(tmp_path: Path, narrow: str) -> None:
    worker = start_worker(tmp_path, narrow)
    try:
        assert run("-c", SUBMIT, TASKAPP_BROKER_URL=narrow).stdout == "5\n"
    finally:
        worker.close()


@pytest.mark.parametrize("command", ["psubscribe", "evalsha", "publish"])
def test_a_node_that_lacks_a_right_names_it_and_is_in_no_hurry(
    tmp_path: Path, redis_server: RedisServer, narrow: str, command: str
) -> None:
    redis_server.client.execute_command("ACL", "SETUSER", "narrow", f"-{command}")
    worker = start_worker(tmp_path, narrow, wait=False)
    try:
        eventually(lambda: f"'{command}'" in worker.output() or worker.returncode is not None, within_seconds=30)
        assert worker.returncode is None, worker.output()
        before = connections_so_far(redis_server)
        eventually(lambda: connections_so_far(redis_server) > before + 1, within_seconds=30)
        # The pauses have grown: in as long as it takes to look, it has not connected a hundred times.
        assert connections_so_far(redis_server) < before + 50
    finally:
        worker.kill()


def test_a_password_that_the_server_does_not_ask_for_does_no_harm(tmp_path: Path, redis_server: RedisServer) -> None:
    url = redis_server.url.replace("//", "//:unasked@")
    worker = start_worker(tmp_path, url)
    try:
        asked = "from taskapp.tasks import add; print(add.delay(1, 2).get(timeout=20))"
        done = run("-c", asked, cwd=tmp_path, TASKAPP_BROKER_URL=url)
        assert done.stdout == "3\n", done.stderr
        assert "away" not in worker.output()
    finally:
        worker.close()


def connections_so_far(server: RedisServer) -> int:
    return int(server.client.info("stats")["total_connections_received"])


@pytest.fixture
def guarded_sentinel(tmp_path: Path, redis_server: RedisServer) -> Iterator[str]:
    """A Sentinel with a password of its own; yields its URL."""
    port, folder = free_port(), tmp_path / "sentinel"
    folder.mkdir()
    (folder / "sentinel.conf").write_text(
        f"port {port}\ndir {folder}\nrequirepass sentinels\nsentinel monitor mymaster 127.0.0.1 {redis_server.port} 1\n"
    )
    argv = [redis_server.binary, str(folder / "sentinel.conf"), "--sentinel"]
    process = Process(argv, folder / "sentinel.log", clean_environment())
    eventually(lambda: process.returncode is not None or "+monitor" in process.output())
    yield f"sentinel://127.0.0.1:{port}/0"
    process.kill()


@pytest.mark.parametrize("command", [("schedules", "list"), ("dead", "list"), ("delayed", "list"), ("doctor",)])
def test_commands_know_what_the_users_module_says_of_sentinels(
    tmp_path: Path, guarded_sentinel: str, command: tuple[str, ...]
) -> None:
    (tmp_path / "sentinel_options.py").write_text(textwrap.dedent(SENTINEL_MODULE))
    variables = {"TASKAPP_BROKER_URL": guarded_sentinel, "TASKAPP_INCLUDE": "sentinel_options"}
    done = run("-m", "taskapp", *command, cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{Path.cwd()}", **variables)
    assert "No master found" not in done.stdout + done.stderr
    assert "cannot be reached" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("refuse", "allow"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
    ],
    ids=["READONLY", "NOREPLICAS"],
)
def test_a_node_that_starts_while_redis_refuses_writes_works_once_it_takes_them(
    app, worker, redis_server, refuse: tuple[str, ...], allow: tuple[str, ...]
) -> None:
    redis_server.client.execute_command(*refuse)
    node = worker(wait=False, TASKAPP_INCLUDE="tests.integration.shop")
    eventually(lambda: "refus" in node.output().lower() or "write" in node.output().lower(), 30)

    redis_server.client.execute_command(*allow)

    eventually(lambda: " ready." in node.output() or node.returncode is not None, 30)
    assert node.returncode is None, node.output()
    assert app.signature("tests.integration.shop.greet", ("you",)).delay().get(timeout=20)
