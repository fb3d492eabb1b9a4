"""Nodes, the dashboard and the exporter on the server of ours, which has another password after each start."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskapp import devredis
from tests.support import Node, Process, clean_environment, eventually, free_port, run_python, start_flower

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    devredis.stop(tmp_path / "data")


@pytest.fixture
def start(data_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start ``python -m …`` with no broker configured."""
    started: list[Process] = []

    def run(*arguments: str, **variables: str) -> Process:
        environment = clean_environment(TASKAPP_DATA_DIR=str(data_dir), PYTHONPATH=str(Path.cwd()), **variables)
        log = tmp_path / f"{len(started)}.log"
        started.append(Node([sys.executable, "-m", *arguments], log, environment, tmp_path))
        return started[-1]

    yield run
    for process in started:
        process.close()


def add_in(data_dir: Path, a: int, b: int) -> str:
    """Return what a process that only submits gets for its sum."""
    code = f"from taskapp.tasks import add; print(add.delay({a}, {b}).get(timeout=20))"
    environment = clean_environment(TASKAPP_DATA_DIR=str(data_dir), PYTHONPATH=str(Path.cwd()))
    done = run_python("-c", code, env=environment)
    return done.stdout.strip() or done.stderr


@pytest.mark.quick("pool-auto", "prefork-auto")
@pytest.mark.parametrize(
    ("pool", "embedded"),
    [("pool", "auto"), ("pool", "tcp"), ("prefork", "auto"), ("threads", "auto"), ("solo", "auto")],
)
def test_a_node_goes_on_with_the_next_server_and_its_new_password(data_dir, start, pool, embedded):
    options = [] if pool == "pool" else ["-P", pool]
    node = start("celery", "-A", "taskapp", "worker", "-c", "1", *options, "-l", "INFO", TASKAPP_EMBEDDED=embedded)
    eventually(lambda: " ready." in node.output() or node.returncode is not None, within_seconds=40)
    assert add_in(data_dir, 1, 2) == "3"
    first = (data_dir / "redis" / "server.json").read_text()

    devredis.stop(data_dir)
    over = "tcp" if embedded == "tcp" else "socket"
    second = devredis.ensure(data_dir, over=over)

    assert second.url.startswith("redis://" if embedded == "tcp" else "redis+socket://")
    assert json.loads(first)["password"] != json.loads((data_dir / "redis" / "server.json").read_text())["password"]
    assert add_in(data_dir, 3, 4) == "7"
    assert node.returncode is None, node.output()


def test_the_dashboard_the_exporter_and_doctor_look_at_the_server_of_ours(data_dir, start, tmp_path):
    server = devredis.ensure(data_dir)
    for _ in range(3):
        server_client(server).lpush("low", "x")
    flower, address = start_flower(tmp_path, FLOWER_UNAUTHENTICATED_API="true")
    port = free_port()
    exporter = start("taskapp", "exporter", "--port", str(port))
    try:
        lengths = json.loads(urllib.request.urlopen(f"{address}/api/queues/length", timeout=20).read())
        page = urllib.request.urlopen(f"{address}/broker", timeout=20).read().decode()
        eventually(lambda: "metrics at" in exporter.output())
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20).read().decode()
    finally:
        flower.close()
    environment = clean_environment(TASKAPP_DATA_DIR=str(data_dir), PYTHONPATH=str(Path.cwd()))
    doctor = run_python("-m", "taskapp", "doctor", env=environment)

    assert {"name": "low", "messages": 3} in lengths["active_queues"]
    assert server.address in page
    assert "Unable to get queues" not in flower.output()
    assert "taskapp_broker_up 1.0" in metrics
    assert doctor.returncode == 0, doctor.stdout
    password = json.loads((server.directory / "server.json").read_text())["password"]
    assert password not in doctor.stdout + doctor.stderr + flower.output() + exporter.output() + page


def server_client(server: devredis.Server):
    import redis

    from taskapp.devredis.login import Login

    return redis.Redis(unix_socket_path=server.address, credential_provider=Login(server.directory))
