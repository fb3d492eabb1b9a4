"""A run of tests reaches nothing that it did not start, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from taskapp import devredis
from tests.support import Process, RedisServer, clean_environment, eventually, processes_of

ROOT = Path(__file__).resolve().parents[2]
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=300")
COLLECTED = (
    "tests/integration/test_data_processing.py", "tests/integration/test_report_generation.py",
    "tests/integration/test_submit.py", "tests/unit/test_celery.py", "tests/unit/test_settings.py",
)  # fmt: skip
"""Those that bind task types when they are collected, those that submit, and those that read settings."""
CHOSEN = "test_a_group_of_each or test_delay or settings or env_file or data_dir"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The home of a developer whose embedded Redis runs on the default data directory."""
    home = tmp_path / "home"
    data_dir = home / ".local/share/taskapp"
    data_dir.mkdir(parents=True)
    devredis.ensure(data_dir, over="tcp")
    yield home
    devredis.stop(data_dir)


def test_a_run_beside_a_deployment_changes_nothing_in_it(home: Path, redis_server: RedisServer, tmp_path: Path) -> None:
    embedded = devredis.connections(home / ".local/share/taskapp")
    assert embedded is not None
    theirs = embedded()
    theirs.send_command("SET", "theirs", "1")
    theirs.read_response()
    env_file = tmp_path / ".env"
    env_file.write_text(f"TASKAPP_BROKER_URL={redis_server.url}\nTASKAPP_NOSUCH=1\n")
    hostile = {
        **os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home / ".local/share"),
        "TASKAPP_BROKER_URL": redis_server.url, "TASKAPP_RESULT_URL": redis_server.url, "TASKAPP_KEY_PREFIX": "hostile",
        "TASKAPP_DATA_DIR": str(home / ".local/share/taskapp"), "TASKAPP_ENV_FILE": str(env_file),
        "TASKAPP_INCLUDE": "no.such.module", "TASKAPP_QUEUES": "nothing", "CELERY_BROKER_URL": redis_server.url,
        "CELERY_RESULT_BACKEND": redis_server.url, "CELERY_CONFIG_MODULE": "no.such.module", "FLOWER_PORT": "1",
        "DJANGO_SETTINGS_MODULE": "no.such.module",
    }  # fmt: skip
    before = seen(redis_server), listed(theirs)

    with ExitStack() as held:
        for port in (5555, 9540):
            taken = held.enter_context(socket.socket())
            with suppress(OSError):  # a developer's own has it, which is as good
                taken.bind(("127.0.0.1", port))
                taken.listen()
        done = subprocess.run(
            [*PYTEST, *COLLECTED, "-k", CHOSEN], env=hostile, cwd=ROOT, capture_output=True, text=True, timeout=280
        )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert (seen(redis_server), listed(theirs)) == before
    theirs.disconnect()


def seen(server: RedisServer) -> tuple[list[str], int]:
    """Return the keys of a server, and how many commands it was ever sent, but for those that ask."""
    with server.client as client:
        calls = client.info("commandstats")
        asking = {"cmdstat_info", "cmdstat_scan", "cmdstat_hello", "cmdstat_client|setinfo", "cmdstat_client"}
        return sorted(client.scan_iter()), sum(each["calls"] for name, each in calls.items() if name not in asking)


def listed(connection: object) -> tuple[object, ...]:
    """Return the keys of the embedded server, and how many connections it ever had."""

    def ask(*command: str) -> bytes:
        connection.send_command(*command)  # type: ignore[attr-defined]
        return connection.read_response()  # type: ignore[attr-defined]

    stats = ask("INFO", "stats")
    text = stats if isinstance(stats, str) else stats.decode()
    return ask("KEYS", "*"), next(line for line in text.splitlines() if line.startswith("total_connections_received"))


STARTING = """
import os, subprocess, sys, time
from pathlib import Path
from tests import guardian

def test_it_starts_all_kinds_and_never_ends(worker, redis_server, tmp_path):
    node = worker("-P", "prefork", "-c", "2")
    env = {**node.env, "TASKAPP_BROKER_URL": "", "TASKAPP_DATA_DIR": str(tmp_path / "own")}
    subprocess.run([sys.executable, "-m", "taskapp", "redis", "start"], env=env, cwd=tmp_path, check=True)
    subprocess.Popen(["setsid", "sleep", "600"], cwd=tmp_path)
    with guardian.for_the_run():
        subprocess.Popen(["setsid", "sleep", "601"], cwd=tmp_path)
    Path("READY").write_text(str(os.getpid()))
    time.sleep(600)
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The file of a test that starts servers and nodes, and the environment to run it in."""
    file = tmp_path / "test_starting.py"
    file.write_text(STARTING.replace("READY", str(tmp_path / "ready")))
    yield file, clean_environment(PYTHONPATH=f"{ROOT}", TMPDIR=str(tmp_path), PYTEST_ADDOPTS="")
    for process in processes_of(tmp_path):
        process.kill()


def ready(process: Process, tmp_path: Path) -> int:
    """Return the process id of what runs the test, once all it starts is there."""
    path = tmp_path / "ready"
    eventually(lambda: process.returncode is not None or (path.exists() and path.read_text()), within_seconds=100)
    assert process.returncode is None, process.output()
    assert len(processes_of(tmp_path)) >= 7
    return int(path.read_text())


def command_of(file: Path, *options: str) -> list[str]:
    folder = str(file.parent)
    return [*PYTEST, "-p", "tests.conftest", f"--rootdir={folder}", f"--basetemp={folder}/base", *options, str(file)]


@pytest.mark.quick("SIGKILL")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_a_run_that_is_ended_from_outside_leaves_nothing(
    number: signal.Signals, running: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    if number is not signal.SIGKILL and signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("these tests were started with this signal ignored, which the tests that they start would inherit")
    process = Process(command_of(running[0]), tmp_path.parent / f"{tmp_path.name}.log", running[1], ROOT)
    ready(process, tmp_path)

    os.kill(process.pid, number)

    process.wait(60)
    eventually(lambda: not processes_of(tmp_path), within_seconds=30)


@pytest.mark.quick("controller")
@pytest.mark.parametrize("ended", ["worker", "controller"])
def test_a_run_of_xdist_of_which_a_process_is_killed_leaves_nothing(
    ended: str, running: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    argv = command_of(running[0], "-n", "1", "--max-worker-restart=0")
    process = Process(argv, tmp_path.parent / f"{tmp_path.name}.log", running[1], ROOT)
    pid = ready(process, tmp_path)
    workers = psutil.Process(pid)

    os.kill(pid if ended == "worker" else process.pid, signal.SIGKILL)

    process.wait(60)
    psutil.wait_procs([workers], timeout=30)
    eventually(lambda: not processes_of(tmp_path), within_seconds=30)


SHARING = """
import os, signal, subprocess
from pathlib import Path
from tests import guardian
from tests.support import eventually, processes_of

HERE = Path(__file__).parent

def sleepers():
    return sorted(each.cmdline()[-1] for each in processes_of(HERE) if each.name() == "sleep")

def test_one_starts_something_for_itself_and_something_for_all():
    subprocess.Popen(["setsid", "sleep", "600"], cwd=HERE)
    with guardian.for_the_run():
        subprocess.Popen(["setsid", "sleep", "601"], cwd=HERE)
    eventually(lambda: sleepers() == ["600", "601"])
    os.kill(os.getpid(), signal.SIGKILL)

def test_the_next_one_has_what_is_for_all():
    eventually(lambda: sleepers() == ["601"])
"""


def test_what_is_for_the_whole_run_outlives_a_worker_and_not_the_run(
    running: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    file, environment = running
    file.write_text(SHARING)
    argv = command_of(file, "-n", "1", "--max-worker-restart=1")
    process = Process(argv, tmp_path.parent / f"{tmp_path.name}.log", environment, ROOT)

    process.wait(100)

    assert "1 failed, 1 passed" in process.output()
    eventually(lambda: not processes_of(tmp_path), within_seconds=30)


def test_make_passes_its_end_on(running: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    file, environment = running
    options = " ".join(command_of(file, "-n", "1")[3:])
    argv = ["make", "-s", "-C", str(ROOT), "-o", ".venv/.dev", "test", "TOGETHER=", f"ARGS={options}"]
    process = Process(argv, tmp_path.parent / f"{tmp_path.name}.log", environment, ROOT)
    ready(process, tmp_path)

    os.kill(process.pid, signal.SIGTERM)

    process.wait(60)
    eventually(lambda: not processes_of(tmp_path), within_seconds=30)
