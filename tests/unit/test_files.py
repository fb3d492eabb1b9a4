from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from taskapp.errors import PathNotAllowed, PermanentError
from taskapp.tasks.shared.files import LEFTOVER_AGE_SECONDS, LEFTOVER_SUFFIX, allowed_path, written_at_once
from tests.support import eventually


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "root-not").mkdir()
    (tmp_path / "root-not" / "file.txt").write_text("beside")
    folder = tmp_path / "root"
    (folder / "inner").mkdir(parents=True)
    (folder / "file.txt").write_text("fine")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


# --- which paths -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["file.txt", "./file.txt", "inner/../file.txt", "inner/link-to-file", "link-inside/file.txt"]
)
def test_what_lies_inside_is_returned_without_links(root: Path, path: str) -> None:
    (root / "inner" / "link-to-file").symlink_to("../file.txt")
    (root / "link-inside").symlink_to(root)

    assert allowed_path(path, [root], must_exist=True) == root / "file.txt"
    assert allowed_path(root / path, [root], must_exist=True) == root / "file.txt"


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt", "/etc/passwd", "inner/../../secret.txt", "link-to-file", "link-to-folder/secret.txt",
        "link-to-link", "link-to-folder/new.txt", "dangling", "../root-not/file.txt", "", ".", "inner/..", "a\0b",
        "/proc/self/environ", "~/file.txt",
    ],
)  # fmt: skip
@pytest.mark.parametrize("must_exist", [True, False])
def test_what_leads_outside_is_refused(root: Path, path: str, must_exist: bool) -> None:
    (root / "link-to-file").symlink_to("../secret.txt")
    (root / "link-to-folder").symlink_to("..")
    (root / "link-to-link").symlink_to("link-to-file")
    (root / "dangling").symlink_to("../not-yet")

    with pytest.raises(PathNotAllowed) as refusal:
        allowed_path(path, [root], must_exist=must_exist)

    assert str(refusal.value) == (
        f"path {path!r} is outside the directories that tasks may use ({root}); add its directory to TASKAPP_FILE_DIRS"
    )


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "device"])
def test_only_regular_files_are_files(root: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [root]
    path = root / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(root)
        socket.socket(socket.AF_UNIX).bind(kind)
    else:
        roots, path = [Path("/dev")], Path("/dev/zero")

    for must_exist in (True, False):
        with pytest.raises(PermanentError, match=f"path '{path}' is not a regular file"):
            allowed_path(path, roots, must_exist=must_exist)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("circle", "symlink loop"),
        ("x" * 300, "file name too long"),
        ("file.txt/below", "not a directory"),
        ("half-\ud800", "surrogates not allowed"),
        ("~nobody-of-this-name/x", "home directory"),
    ],
)
def test_a_path_the_system_cannot_follow_is_a_permanent_error(root: Path, path: str, reason: str) -> None:
    (root / "circle").symlink_to("circle")

    with pytest.raises(PermanentError, match=reason):
        allowed_path(path, [root], must_exist=False)


def test_a_file_to_be_written_need_not_be_there(root: Path) -> None:
    assert allowed_path("new/deep.html", [root], must_exist=False) == root / "new" / "deep.html"
    with pytest.raises(PermanentError, match=r"no file 'new/deep\.html'"):
        allowed_path("new/deep.html", [root], must_exist=True)


def test_each_root_counts_and_a_root_may_be_a_link(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)

    assert allowed_path(link / "file.txt", [tmp_path / "root-not", link], must_exist=True) == root / "file.txt"
    with pytest.raises(PathNotAllowed, match=r"\(none\)"):
        allowed_path(root / "file.txt", [], must_exist=True)


# --- written at once -------------------------------------------------------------------------


def test_readers_see_the_old_file_or_the_new_one_whole(root: Path) -> None:
    path, size = root / "page.html", 300_000
    path.write_text("0" * size)
    stop = threading.Event()
    torn: list[str] = []

    def read() -> None:
        while not stop.is_set():
            text = path.read_text()
            if len(text) != size or len(set(text)) != 1:
                torn.append(text[:20])

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 60):
        with written_at_once(path) as file:
            for _ in range(10):
                file.write(str(number % 10) * (size // 10))
    stop.set()
    reader.join()

    assert torn == []
    assert path.read_text() == "9" * size


def test_many_may_write_the_same_file(root: Path) -> None:
    path = root / "page.html"

    def write(letter: str) -> None:
        for _ in range(20):
            with written_at_once(path) as file:
                file.write(letter * 10_000)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    text = path.read_text()
    assert text == text[0] * 10_000
    assert names(root) == ["file.txt", "inner", "page.html"]


KILLED_WRITER = """
import sys, time
from pathlib import Path
from taskapp.tasks.shared.files import written_at_once
with written_at_once(Path(sys.argv[1])) as file:
    file.write("half"), file.flush()
    time.sleep(600)
"""


def test_a_killed_write_leaves_the_old_file_and_something_recognisable(root: Path) -> None:
    path = root / "pa[g]e.html"
    path.write_text("old")
    writer = subprocess.Popen([sys.executable, "-c", KILLED_WRITER, str(path)])
    leftover = eventually(lambda: next((one for one in root.glob(f"*{LEFTOVER_SUFFIX}") if one.stat().st_size), None))
    writer.send_signal(signal.SIGKILL)
    writer.wait()

    assert path.read_text() == "old"
    with written_at_once(path) as file:
        file.write("young leftovers may belong to a running write")
    assert leftover.exists()

    hours_ago = time.time() - LEFTOVER_AGE_SECONDS - 1
    os.utime(leftover, (hours_ago, hours_ago))
    with written_at_once(path) as file:
        file.write("new")

    assert path.read_text() == "new"
    assert names(root) == ["file.txt", "inner", "pa[g]e.html"]


def test_lines_end_as_written_and_text_is_utf_8(root: Path) -> None:
    with written_at_once(root / "deep" / "page.html") as file:
        file.write("größe\n")

    assert (root / "deep" / "page.html").read_bytes() == "größe\n".encode()
