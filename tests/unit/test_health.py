from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskapp.probes import health
from taskapp.probes.health import FILE_BYTES, Status, main, nodes, why_not_live, why_not_ready
from taskapp.probes.status_file import Reporter, StatusFile
from tests.support import clean_environment, eventually

NOW = 10_000.0


def running(**fields: object) -> Status:
    status = Status("w1@host")
    status.phase = "running"
    status.written_at = status.turn_due_at = status.pool_at = status.broker_at = NOW
    for name, value in fields.items():
        assert hasattr(status, name)
        setattr(status, name, value)
    return status


@pytest.mark.parametrize(
    ("status", "live", "ready"),
    [
        (running(), "", ""),
        (running(turn_due_at=NOW - 29), "", ""),
        (running(turn_due_at=NOW - 31), *["its loop has not turned for 31 s"] * 2),
        (running(turn_due_at=NOW - 3_600, in_task=True), "", ""),
        (running(turn_due_at=NOW + 290), "", ""),
        (running(broker_at=NOW - 3_600), "", "it has not reached its broker for 3600 s"),
        (running(broker_at=0.0), "", ""),
        (running(phase="starting", turn_due_at=0.0), "", "it is starting or waiting for its broker"),
        (running(phase="draining", turn_due_at=0.0, ends_at=NOW + 20), "", "it is draining"),
        (running(phase="draining", ends_at=NOW - 31), *["it should have ended 31 s ago"] * 2),
        (running(pool_problem="none of its child processes is alive"), "", "none of its child processes is alive"),
        (running(pool_problem="none lives", pool_at=NOW - 40), *["none lives, for 40 s"] * 2),
        (running(written_at=NOW - 7), "", "it has not reported for 7 s"),
        (
            running(written_at=NOW - 31, in_task=True),
            *["it has not reported for 31 s: it is stopped, or a task blocks its interpreter"] * 2,
        ),
    ],
)
def test_what_is_live_and_what_is_ready(status: Status, live: str, ready: str) -> None:
    read = Status.load(status.dump())

    assert read is not None
    assert vars(read) == vars(status)
    assert (why_not_live(read, NOW), why_not_ready(read, NOW)) == (live, ready)


def test_a_shorter_patience_finds_a_short_standstill() -> None:
    assert why_not_live(running(turn_due_at=NOW - 3), NOW, patience_seconds=2) == "its loop has not turned for 3 s"


@pytest.mark.parametrize("data", [b"", b"\0" * FILE_BYTES, b"pid=x\n".ljust(FILE_BYTES), b"x" * 5_000, b"\xff" * 1_024])
def test_a_file_of_something_else_is_no_node(data: bytes, tmp_path: Path) -> None:
    assert Status.load(data) is None


def test_a_hostile_name_stays_inside_its_file_and_folder(tmp_path: Path) -> None:
    status = running()
    hostile = Status("../../../etc/passwd\nphase=running\0" + "x" * 5_000)
    hostile.written_at = NOW
    file = StatusFile(tmp_path, hostile.name)

    file.write(hostile.dump())
    read = Status.load(hostile.dump())

    assert file.path.parent == tmp_path / "nodes"
    assert file.path.is_file()
    assert len(hostile.dump()) == len(status.dump()) == FILE_BYTES
    assert read is not None
    assert read.phase == "starting"


# --- files ----------------------------------------------------------------------------------------

WRITER = """
    import sys, time
    from pathlib import Path
    from taskapp.probes.health import Status
    from taskapp.probes.status_file import Reporter
    for name in sys.argv[2:]:
        status = Status(name)
        status.phase = "running"
        def look(status, now): status.turn_due_at = now
        Reporter(Path(sys.argv[1]), status, look).start()
    print("started", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    yield (process := start_writer(tmp_path, "w1@host", "w1@other"))
    process.kill()
    process.communicate()


def start_writer(directory: Path, *names: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(directory), *names], env=clean_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    eventually(lambda: set(names) <= {status.name for status in nodes(str(directory))})
    return process


def names(directory: Path) -> list[str]:
    return [status.name for status in nodes(str(directory))]


def test_files_of_the_dead_are_removed_and_those_of_the_living_are_not(
    writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    other = start_writer(tmp_path, "w2@host")
    assert sorted(names(tmp_path)) == ["w1@host", "w1@other", "w2@host"]

    other.kill()
    other.communicate()

    assert sorted(names(tmp_path)) == ["w1@host", "w1@other"]
    assert len(list((tmp_path / "nodes").iterdir())) == 2


def test_a_process_id_that_lives_again_is_not_taken_for_the_node(tmp_path: Path) -> None:
    status = running()
    status.pid = os.getppid()
    file = tmp_path / "nodes" / f"w1@host.{os.getppid()}.node"
    file.parent.mkdir()
    file.write_bytes(status.dump())

    assert names(tmp_path) == []
    assert not file.exists()


def test_a_file_that_was_deleted_comes_back(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    for path in (tmp_path / "nodes").iterdir():
        path.unlink()

    eventually(lambda: len(names(tmp_path)) == 2)


def test_a_full_disk_stops_no_node_that_has_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file system that is really full would need rights tests do not have; this one refuses to grow files."""
    really = os.pwrite

    def refuses_to_grow(file: int, data: bytes, offset: int) -> int:
        if os.fstat(file).st_size < offset + len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(file, data, offset)

    early, late = Status("early@host"), Status("late@host")
    reporter = Reporter(tmp_path, early, lambda *_: None)
    reporter.note(NOW)
    monkeypatch.setattr(os, "pwrite", refuses_to_grow)

    reporter.note(NOW + 1)
    Reporter(tmp_path, late, lambda *_: None).start()

    eventually(lambda: "probes will report that no node runs here" in caplog.text)
    assert "No space left on device" in caplog.text
    files = list((tmp_path / "nodes").iterdir())
    assert [Status.load(file.read_bytes()).written_at for file in files] == [NOW + 1]  # type: ignore[union-attr]
    monkeypatch.undo()
    eventually(lambda: "late@host" in "".join(file.name for file in (tmp_path / "nodes").iterdir()))


def test_a_folder_that_cannot_be_written_is_named_once_and_the_node_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "nodes").touch()
    turns: list[float] = []

    reporter = Reporter(tmp_path, Status("w1@host"), lambda _, now: turns.append(now))
    reporter.start()
    eventually(lambda: len(turns) >= 3)
    reporter.stop()

    assert caplog.text.count("make TASKAPP_DATA_DIR writable") == 1


def test_a_forked_child_writes_nothing_and_takes_no_lock_with_it(tmp_path: Path) -> None:
    script = textwrap.dedent(WRITER).replace("sys.stdin.read()", "import os\nif os.fork(): os._exit(0)\ntime.sleep(60)")
    done = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), "w1@host"], stdout=subprocess.DEVNULL)
    done.wait(20)

    assert names(tmp_path) == []


# --- the command ----------------------------------------------------------------------------------


def ask(directory: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    environment = clean_environment(TASKAPP_DATA_DIR=str(directory), **variables)
    done = subprocess.run(
        [sys.executable, "-m", "taskapp", "health", *arguments], env=environment, capture_output=True, text=True,
        timeout=20,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_answer_names_the_node_and_the_exit_code_says_it_too(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    assert ask(tmp_path, "live", "--node", "w1@host") == (0, "w1@host is live\n", "")
    assert ask(tmp_path, "live", "--node=w1")[1].splitlines() == ["w1@host is live", "w1@other is live"]
    code, out, _ = ask(tmp_path, "ready", "--json", "--node", "w1@other")
    assert code == 0
    assert {**json.loads(out), "turned_seconds_ago": 0} == {
        "node": "w1@other", "pid": writer.pid, "question": "ready", "ok": True, "problem": "", "phase": "running",
        "turned_seconds_ago": 0, "broker_seconds_ago": None,
    }  # fmt: skip
    code, _, err = ask(tmp_path, "live", "--node", "w9")
    assert (code, err.startswith(f"Error: no node named 'w9' runs here (looked in '{tmp_path}/nodes'")) == (1, True)


def test_a_stopped_process_is_neither_live_nor_ready(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    os.kill(writer.pid, 19)
    time_to_notice = "Error: w1@host is not live: it has not reported for 2 s"
    eventually(lambda: ask(tmp_path, "live", "--patience", "1.5")[2].startswith(time_to_notice))

    assert ask(tmp_path, "live")[0] == 0
    os.kill(writer.pid, 18)
    eventually(lambda: ask(tmp_path, "live", "--patience", "1.5")[0] == 0)


@pytest.mark.parametrize(
    "arguments", [(), ("alive",), ("live", "ready"), ("live", "--wat"), ("live", "--node"), ("live", "--patience=x")]
)
def test_what_is_misused_is_said_with_exit_code_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(arguments)) == 2
    assert capsys.readouterr().err.startswith("Usage: taskapp health live|ready")


def test_help_is_there_and_in_the_list_of_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == health.USAGE
    listing = subprocess.run([sys.executable, "-m", "taskapp", "--help"], capture_output=True, text=True, timeout=30)
    assert "health" in listing.stdout


LARGE = ("click", "celery", "kombu", "redis", "pydantic", "dotenv", "platformdirs", "logging", "typing", "re")


def test_nothing_large_is_imported(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    script = (
        "import sys\nbefore = set(sys.modules)\nsys.argv = ['taskapp', 'health', 'live']\n"
        "from taskapp.__main__ import main\n"
        "try: main()\nexcept SystemExit as ended: assert ended.code == 0\n"
        f"print(sorted(set(sys.modules) - before & set({LARGE!r})), sorted(set({LARGE!r}) & set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n{script}"],
        env=clean_environment(TASKAPP_DATA_DIR=str(tmp_path)), capture_output=True, text=True, timeout=20,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(" []")


def test_the_data_directory_is_found_as_the_settings_find_it(tmp_path: Path) -> None:
    from taskapp.env_file import data_dir
    from taskapp.settings import load_settings

    env_file = tmp_path / "settings"
    env_file.write_text(f"export TASKAPP_DATA_DIR='{tmp_path}/from file'\n")
    for environ in (
        {"TASKAPP_ENV_FILE": ""},
        {"TASKAPP_ENV_FILE": str(env_file)},
        {"TASKAPP_ENV_FILE": str(env_file), "TASKAPP_DATA_DIR": "relative/../here"},
        {"TASKAPP_ENV_FILE": "", "TASKAPP_DATA_DIR": "~/somewhere"},
    ):
        settings = load_settings(environ, env_file if environ["TASKAPP_ENV_FILE"] else None)
        assert data_dir(environ) == str(settings.data_dir)
