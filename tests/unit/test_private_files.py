from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskapp.devredis.home import write_private
from taskapp.monitor.history.history import History
from taskapp.private_files import make_private_directory, make_private_file, open_private
from taskapp.tasks.files import written_at_once
from taskapp.worker.beat_file import PrivateShelf
from taskapp.worker.status import StatusFile


@pytest.fixture(autouse=True)
def generous(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the user's mask take nothing away, and nobody restrict later what was made."""
    before = os.umask(0)
    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, lambda *_: None)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """Return the modes of all that lies below ``folder``."""
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def keep_history(folder: Path) -> None:
    History(f"sqlite:///{folder}/state/history.sqlite").create()


def write_report(folder: Path) -> None:
    with written_at_once(folder / "reports" / "2026" / "r.html") as file:
        file.write("secret")
        assert all(mode & 0o077 == 0 for mode in modes(folder).values()), "while it is written, too"


def keep_schedules(folder: Path) -> None:
    with PrivateShelf.open(str(folder / "celerybeat-schedule"), writeback=True) as shelf:
        shelf["entries"] = {"a": 1}
    with PrivateShelf.open(str(folder / "celerybeat-schedule"), writeback=True) as shelf:
        assert shelf["entries"] == {"a": 1}


def write_status(folder: Path) -> None:
    StatusFile(folder / "data", "w1@host").write(bytes(10_000))


def write_record(folder: Path) -> None:
    write_private(folder / "server.json", b"secret")


@pytest.mark.parametrize("leave", [keep_history, write_report, keep_schedules, write_status, write_record])
def test_what_is_left_behind_is_private_from_the_moment_it_exists(
    tmp_path: Path, leave: Callable[[Path], None]
) -> None:
    leave(tmp_path)

    left = modes(tmp_path)
    assert left
    assert {name: mode for name, mode in left.items() if mode not in (0o600, 0o700)} == {}


def test_missing_directories_above_are_private_too(tmp_path: Path) -> None:
    make_private_directory(tmp_path / "a" / "b" / "c")
    make_private_directory(tmp_path / "a" / "b" / "c")

    assert modes(tmp_path) == {"a": 0o700, "a/b": 0o700, "a/b/c": 0o700}


def test_what_exists_keeps_its_mode_and_content(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    os.close(os.open(tmp_path / "f", os.O_CREAT | os.O_WRONLY, 0o644))
    (tmp_path / "f").write_text("kept")

    make_private_directory(tmp_path / "shared")
    make_private_file(tmp_path / "f")

    assert modes(tmp_path) == {"shared": 0o755, "f": 0o644}
    assert (tmp_path / "f").read_text() == "kept"


def test_a_file_in_the_way_of_a_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "f").touch()

    with pytest.raises(FileExistsError):
        make_private_directory(tmp_path / "f")
    with pytest.raises(NotADirectoryError):
        make_private_directory(tmp_path / "f" / "below")


def test_the_opener_makes_files_private(tmp_path: Path) -> None:
    with open(tmp_path / "f", "w", opener=open_private) as file:
        file.write("x")

    assert modes(tmp_path) == {"f": 0o600}
