"""Flower runs no code that another user may have left where it is started."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Node, Process, RedisServer, clean_environment, eventually, free_port

LEAVE_A_MARK = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nmax_tasks = 77\n"


@pytest.fixture
def flower(tmp_path: Path, redis_server: RedisServer) -> Iterator[Process]:
    """A Flower that is not started yet, in a folder of its own."""
    (tmp_path / "here").mkdir()
    environment = clean_environment(TASKAPP_BROKER_URL=redis_server.url, PYTHONPATH=str(Path.cwd()))
    started: list[Process] = []

    def start(*options: str) -> Process:
        argv = [sys.executable, "-m", "celery", "-A", "taskapp", "flower", f"--port={free_port()}", *options]
        process = Node(argv, tmp_path / "flower.log", environment, tmp_path / "here")
        started.append(process)
        eventually(lambda: "Visit me" in process.output() or process.returncode is not None, within_seconds=40)
        return process

    yield start
    for process in started:
        process.kill()


def test_a_configuration_that_others_can_write_is_passed_over_with_the_reason(flower, tmp_path):
    conf = tmp_path / "here" / "flowerconfig.py"
    conf.write_text(LEAVE_A_MARK)
    conf.chmod(0o666)

    process = flower()

    assert process.returncode is None, process.output()
    assert not (tmp_path / "here" / "ran").exists()
    assert f"flowerconfig.py: every user can write to {str(conf)!r}; pass its path" in process.output()


@pytest.mark.parametrize("options", [(), ("--conf={folder}/flowerconfig.py",)])
def test_ones_own_configuration_is_taken_and_so_is_one_that_is_named(flower, tmp_path, options):
    conf = tmp_path / "here" / "flowerconfig.py"
    conf.write_text(LEAVE_A_MARK)
    conf.chmod(0o666 if options else 0o644)

    process = flower(*(option.format(folder=tmp_path / "here") for option in options))

    assert process.returncode is None, process.output()
    assert (tmp_path / "here" / "ran").exists()
    assert "ignoring" not in process.output()


@pytest.mark.parametrize("suffix", ["", ".db", ".dat"])
def test_what_others_may_have_saved_is_not_loaded(flower, tmp_path, suffix):
    saved = tmp_path / "here" / f"flower{suffix}"
    saved.touch()
    saved.chmod(0o666)

    process = flower("--persistent")

    assert process.returncode == 1
    assert f"Error: --persistent would run code from 'flower{suffix}': every user can write to" in process.output()
    assert "Traceback" not in process.output()


def test_a_secret_on_the_command_line_is_warned_of_and_not_repeated(flower, tmp_path):
    process = flower("--basic_auth=ada:c4naryXq", "--cookie-secret=c4naryXq")

    for name in ("basic_auth", "cookie_secret"):
        warning = f"every user of this machine can see --{name} in the process list; set FLOWER_{name.upper()} instead"
        assert process.output().count(warning) == 1
    assert "c4naryXq" not in process.output()
