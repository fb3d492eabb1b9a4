"""What a whole deployment on one machine leaves on disk: nothing of it is for other users."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskapp import devredis
from tests.support import Node, Process, clean_environment, eventually, free_port

pytestmark = pytest.mark.timeout(120)

SUBMIT = """
from taskapp.tasks import add, report_generation
section = dict(heading="h", literal=dict(columns=["a"], rows=[["x"]]))
print(add.delay(4711, 1).get(timeout=20))
report_generation.delay([], dict(title="t", output_path="sub/r.html", sections=[section])).get(timeout=60)
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    before = os.umask(0)
    yield tmp_path / "home" / "share" / "taskapp"
    os.umask(before)
    devredis.stop(tmp_path / "home" / "share" / "taskapp")


def test_nothing_is_left_that_other_users_can_read(data_dir: Path, tmp_path: Path) -> None:
    environment = clean_environment(
        TASKAPP_DATA_DIR=str(data_dir), TASKAPP_HISTORY="true", PYTHONPATH=str(Path.cwd()), TASKAPP_CANARY_SECONDS="1"
    )
    work = tmp_path / "work"
    work.mkdir()

    def start(name: str, *arguments: str) -> Process:
        return Node([sys.executable, "-m", *arguments], tmp_path / f"{name}.log", environment, work)

    celery = ("celery", "-A", "taskapp")
    started = [
        start("worker", *celery, "worker", "-c", "2", "-l", "INFO"),
        start("beat", *celery, "beat"),
        start("history", "taskapp", "history", "run"),
        start("flower", *celery, "flower", f"--port={free_port()}", "--persistent", "--state_save_interval=200"),
    ]
    try:
        eventually(lambda: " ready." in started[0].output(), within_seconds=40)
        assert Node([sys.executable, "-c", SUBMIT], tmp_path / "submit.log", environment, work).wait(90) == 0
        eventually(lambda: list(data_dir.glob("history.sqlite*")) and list(work.glob("flower*")), within_seconds=40)
    finally:
        for process in reversed(started):
            process.close()

    made = [data_dir.parent, data_dir, *data_dir.rglob("*"), *work.rglob("*")]
    assert {"r.html", "history.sqlite", "server.json"} <= {path.name for path in made}
    wrong = {str(path): oct(path.lstat().st_mode) for path in made if stat.S_IMODE(path.lstat().st_mode) & 0o077}
    assert wrong == {}
