from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskapp.beat.file_scheduler import PrivateShelf
from taskapp.devredis.home import write_private
from taskapp.env_file import find_env_file
from taskapp.monitor.history.history import History
from taskapp.private_files import make_private_directory, make_private_file, open_private, why_not_trusted
from taskapp.probes.status_file import StatusFile
from taskapp.tasks.shared.files import written_at_once


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


# --- whose files to believe --------------------------------------------------------------------

OTHER = 65_534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.undo()  # modes are to be changed here
    (tmp_path / "project").mkdir(mode=0o755)
    (tmp_path / "project" / ".env").touch(mode=0o644)
    return tmp_path / "project"


def test_a_file_of_ours_in_a_folder_of_ours_is_trusted(project: Path) -> None:
    assert why_not_trusted(project / ".env") == ""


@pytest.mark.parametrize("what", ["", ".env"])
def test_what_every_user_or_a_group_can_write_is_not_trusted(project: Path, what: str) -> None:
    path, strange_group = project / what, 4_711
    path.chmod(0o777)
    assert why_not_trusted(project / ".env") == f"every user can write to {str(path)!r}"
    path.chmod(0o1777)
    assert why_not_trusted(project / ".env") == f"every user can write to {str(path)!r}"
    if os.geteuid() == 0:
        path.chmod(0o775)
        assert why_not_trusted(project / ".env") == "", "the group of its user alone"
        os.chown(path, -1, strange_group)
        path.chmod(0o775)
        assert why_not_trusted(project / ".env") == f"group {strange_group} can write to {str(path)!r}"


@needs_root
@pytest.mark.parametrize("what", ["", ".env"])
def test_what_belongs_to_another_user_is_not_trusted(project: Path, what: str) -> None:
    os.chown(project / what, OTHER, -1)

    assert why_not_trusted(project / ".env") == f"{str(project / what)!r} belongs to user {OTHER}"


@needs_root
@pytest.mark.parametrize("whose", ["link", "target", "folder"])
def test_links_are_followed_and_looked_at(project: Path, tmp_path: Path, whose: str) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    target, link = tmp_path / "elsewhere" / "real", project / "link"
    target.touch(mode=0o644)
    link.symlink_to("../elsewhere/real")
    assert why_not_trusted(link) == ""

    given = {"link": link, "target": target, "folder": tmp_path / "elsewhere"}[whose]
    os.chown(given, OTHER, -1, follow_symlinks=False)

    assert f"belongs to user {OTHER}" in why_not_trusted(link)


def test_links_in_a_circle_are_not_trusted(project: Path) -> None:
    (project / "a").symlink_to("b")
    (project / "b").symlink_to("a")

    assert why_not_trusted(project / "a") != ""


def test_an_env_file_that_others_can_write_is_passed_over_and_the_search_goes_on(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".env").touch(mode=0o644)
    (project / ".env").chmod(0o666)

    assert find_env_file(project, {}) == tmp_path / ".env"
    assert caplog.messages == [
        f"ignoring {project / '.env'}: every user can write to {str(project / '.env')!r}; "
        "set TASKAPP_ENV_FILE to its path if you trust it"
    ]
    assert find_env_file(project, {"TASKAPP_ENV_FILE": str(project / ".env")}) == project / ".env"
