"""A log's writer: order, whole lines, bounds, forks, and readers that stop; what a task's line shares with a record."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskapp.logs import writer as writer_module
from taskapp.logs.formatters import (
    OUTSIDE,
    TASK_FIELDS,
    TRACE_FIELDS,
    JSONFormatter,
    TaskFields,
    TaskLine,
    TextFormatter,
)
from taskapp.logs.handlers import FileHandler, LineHandler
from taskapp.logs.setup import Logging
from taskapp.logs.sink import ATOMIC_BYTES, StreamSink, file_sink
from taskapp.logs.task_lines import TaskLines
from taskapp.logs.writer import KEPT_BYTES, KEPT_LINES, LogWriter
from tests.support import eventually

TEMPLATE = "Task %(name)s[%(id)s] received"
CONTEXT = {"id": "1", "name": "shop.add", "args": "(1,)", "kwargs": "{}", "eta": None}
texts = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(
    ['"}, "level": "forged', "\x7f\x9b31m", "\x1b[2J\r\n2026-", "\u2028\u202e", "\ud800", "\\u0041\\"]
)
FIELDS = st.just(OUTSIDE) | st.tuples(texts, texts, texts | st.none(), st.integers(1, 9))


class Color(StrEnum):
    RED = '"red"'


scalars = texts | st.floats() | st.integers() | st.booleans() | st.none() | st.sampled_from(Color)
keys = texts | st.floats() | st.integers() | st.booleans() | st.none()
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(keys, scalars, max_size=2)


class Pipe:
    """A pipe with a writer at its end."""

    def __init__(self) -> None:
        self.reader, self.end = os.pipe()
        os.set_blocking(self.reader, False)
        self.writer = LogWriter(StreamSink(lambda: self.end))
        self.got = b""

    def read(self) -> bytes:
        with suppress(BlockingIOError):
            while data := os.read(self.reader, 1 << 20):
                self.got += data
        return self.got

    def close(self) -> None:
        for descriptor in (self.reader, self.end):
            with suppress(OSError):
                os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


# --- the writer -------------------------------------------------------------------------------------


def test_lines_leave_in_the_order_they_came_whoever_gave_them(pipe: Pipe) -> None:
    pipe.writer.add(b"one\n")
    pipe.writer.add((lambda number: b"%d\n" % number, 2))
    assert pipe.read() == b""
    pipe.writer.write(b"three\n")
    assert pipe.read() == b"one\n2\nthree\n"


def test_a_line_that_was_only_added_is_written_soon(pipe: Pipe) -> None:
    pipe.writer.add(b"one\n")
    eventually(lambda: pipe.read() == b"one\n", within_seconds=5)


def test_lines_of_many_threads_are_whole_and_each_thread_s_in_order(tmp_path: Path) -> None:
    writer = LogWriter(file_sink(str(tmp_path / "log")))

    def work(name: int) -> None:
        for number in range(300):
            (writer.add if number % 3 else writer.write)(b"%d %d\n" % (name, number))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.flush()

    lines = [tuple(map(int, line.split())) for line in (tmp_path / "log").read_text().splitlines()]
    for name in range(8):
        assert [number for whose, number in lines if whose == name] == list(range(300))
    assert len(lines) == 8 * 300


def test_a_reader_that_stops_holds_up_nobody_and_hears_how_many_lines_it_missed(pipe: Pipe) -> None:
    line = b"x" * 999 + b"\n"
    given = 3 * KEPT_BYTES // len(line)
    began = time.monotonic()
    for _ in range(given):
        pipe.writer.write(line)
    assert time.monotonic() - began < 20  # it would wait for ever
    assert len(pipe.writer._rest) <= KEPT_BYTES + len(line)
    assert not pipe.writer._lines

    def dropped() -> int:
        found = re.search(rb"([\d,]+) log lines were dropped here", pipe.read())
        return int(found[1].replace(b",", b"")) if found else 0

    eventually(lambda: dropped() > 0, within_seconds=10)
    pipe.writer.write(b"after\n")
    eventually(lambda: pipe.read().endswith(b"after\n"), within_seconds=5)
    assert pipe.read().count(line) + dropped() == given


def test_what_nobody_comes_to_format_is_bounded_too(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogWriter, "_watch", lambda _: None)
    for _ in range(KEPT_LINES + 5):
        pipe.writer.add(b"x\n")
    assert len(pipe.writer._lines) == KEPT_LINES
    pipe.writer.drain()
    pipe.writer.flush()
    eventually(lambda: pipe.writer.drain() or b"5 log lines were dropped" in pipe.read(), within_seconds=5)


def test_the_flag_of_the_pipe_itself_stays_as_it_was(pipe: Pipe) -> None:
    pipe.writer.write(b"x\n")
    assert os.get_blocking(pipe.end)


def test_pieces_for_a_pipe_end_with_a_line(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[bytes] = []
    write = os.write

    def seen(descriptor: int, data: Any) -> int:
        pieces.append(bytes(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", seen)
    for number in range(200):
        pipe.writer.add(b"%d " % number + b"x" * 100 + b"\n")
    pipe.writer.drain()
    assert b"".join(pieces) == pipe.read()
    assert all(len(piece) <= ATOMIC_BYTES and piece.endswith(b"\n") for piece in pieces)
    assert len(pieces) < 10


def test_a_full_disk_is_named_once_and_what_was_kept_is_written_when_there_is_room(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "AGAIN_SECONDS", 0.01)
    writer, full = LogWriter(file_sink(str(tmp_path / "log"))), True
    write = os.write

    def refused(descriptor: int, data: Any) -> int:
        if full and os.fstat(descriptor).st_ino == (tmp_path / "log").stat().st_ino:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", refused)
    for number in range(50):
        writer.write(b"%d\n" % number)
        time.sleep(0.001)
    full = False
    eventually(lambda: (tmp_path / "log").read_text().splitlines() == [str(n) for n in range(50)], within_seconds=5)
    said = capfd.readouterr().err
    assert said.count("No space left on device") == 1
    assert str(tmp_path / "log") in said


def test_a_closed_pipe_ends_nobody(pipe: Pipe) -> None:
    os.close(pipe.reader)
    for _ in range(10):
        pipe.writer.write(b"x\n")
    pipe.writer.flush()


def test_a_socket_whose_reader_stops_holds_up_nobody() -> None:
    ours, theirs = socket.socketpair()
    writer = LogWriter(StreamSink(ours.fileno))
    for _ in range(2_000):
        writer.write(b"x" * 999 + b"\n")
    assert ours.getblocking()
    got = 0
    while writer.has_unwritten:
        got += len(theirs.recv(1 << 20))
        writer.drain()
    theirs.setblocking(False)
    with suppress(BlockingIOError):
        while data := theirs.recv(1 << 20):
            got += len(data)
    assert got == 2_000 * 1_000
    ours.close()
    theirs.close()


def test_a_child_writes_nothing_of_what_its_parent_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogWriter, "_watch", lambda _: None)
    writer = LogWriter(file_sink(str(tmp_path / "log")))
    for number in range(3):
        writer.add(b"%d\n" % number)
    child = os.fork()
    if not child:
        writer.write(b"child\n")
        os._exit(0)
    os.waitpid(child, 0)
    writer.write(b"parent\n")
    assert (tmp_path / "log").read_text() == "0\n1\n2\nchild\nparent\n"


def test_a_fork_while_another_thread_writes_leaves_the_child_a_log(tmp_path: Path) -> None:
    writer = LogWriter(file_sink(str(tmp_path / "log")))
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            writer.write(b"x\n")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if not child:
                writer.write(b"child\n")
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
    assert (tmp_path / "log").read_text().splitlines().count("child") == 20


def test_a_line_that_logs_as_it_is_made_does_not_wait_for_itself(pipe: Pipe) -> None:
    def made(_: None) -> bytes:
        pipe.writer.write(b"inner\n")
        return b"outer\n"

    pipe.writer.write((made, None))
    assert pipe.read() == b"outer\ninner\n"


def test_a_line_that_cannot_be_made_costs_itself_alone(pipe: Pipe) -> None:
    def broken(_: None) -> bytes:
        raise ValueError

    pipe.writer.add((broken, None))
    pipe.writer.write(b"next\n")
    assert pipe.read() == b"a log line could not be formatted: ValueError\nnext\n"


def test_no_memory_loses_no_line(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "AGAIN_SECONDS", 0.0)
    tries = iter([MemoryError(), b"made\n"])

    def scarce(_: None) -> bytes:
        match next(tries):
            case MemoryError() as error:
                raise error
            case bytes(line):
                return line

    pipe.writer.write((scarce, None))
    pipe.writer.write(b"next\n")
    eventually(lambda: pipe.read() == b"made\nnext\n", within_seconds=5)


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    writer, log = LogWriter(file_sink(str(tmp_path / "log"))), tmp_path / "log"
    writer.write(b"one\n")
    log.rename(tmp_path / "log.1")
    writer.write(b"two\n")
    log.unlink()
    writer.write(b"three\n")
    assert ((tmp_path / "log.1").read_text(), log.read_text()) == ("one\n", "three\n")


def test_what_takes_the_place_of_stderr_is_written_to(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY) for name in ("first", "second"))
    writer = LogWriter(StreamSink(lambda: first))
    writer.write(b"one\n")
    os.dup2(second, first)
    writer.write(b"two\n")
    assert ((tmp_path / "first").read_text(), (tmp_path / "second").read_text()) == ("one\n", "two\n")


# --- lines of tasks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "json"])
@given(
    context=st.dictionaries(texts, values, max_size=3), name=texts, task_id=texts, fields=FIELDS, at=st.floats(0, 4e9),
    logger=texts, level=texts,
)  # fmt: skip
def test_a_line_of_a_task_is_what_its_record_would_be(
    kind: str, context: dict[str, Any], name: str, task_id: str, fields: tuple[Any, ...], at: float, logger: str,
    level: str,
) -> None:  # fmt: skip
    formatter: Any = TextFormatter() if kind == "text" else JSONFormatter(TASK_FIELDS)
    line = TaskLine(at, logger, TEMPLATE, {**context, "name": name, "id": task_id}, fields)
    logging.addLevelName(logging.INFO, level)
    try:
        assert formatter.task_line(line) == formatter.format(line.record())
    finally:
        logging.addLevelName(logging.INFO, "INFO")


def test_lines_with_a_trace_are_left_to_records() -> None:
    with pytest.raises(ValueError, match="trace"):
        JSONFormatter((*TASK_FIELDS, *TRACE_FIELDS)).task_line(TaskLine(1.0, "x", TEMPLATE, CONTEXT, OUTSIDE))


class Node:
    """Loggers as Celery sets them up, with ours in front of a file."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.root = logging.Logger("root", logging.INFO)  # noqa: LOG001 - of nobody else
        self.logger = logging.Logger("celery.app.trace", logging.INFO)  # noqa: LOG001
        self.logger.parent = self.root
        self.logger.addHandler(logging.NullHandler())
        self.handler = FileHandler(str(log))
        self.handler.use(TextFormatter(), [TaskFields()])
        self.root.addHandler(self.handler)
        self.lines = TaskLines()
        self.lines.is_batching = True

    def say(self, task_id: str) -> None:
        self.lines.received(self.logger, TEMPLATE, {**CONTEXT, "id": task_id}, may_wait=True)

    def said(self) -> list[str]:
        return re.findall(r"shop\.add\[(.*?)\]", self.log.read_text())


class Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.getMessage(), threading.get_ident()))
        assert record.__dict__["data"]["name"] == "shop.add"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(LogWriter, "_watch", lambda _: None)
    monkeypatch.setattr("taskapp.logs.task_lines.SEEN_SECONDS", 0.0)
    node = Node(tmp_path / "log")
    yield node
    node.handler.close()


def test_a_received_line_is_written_before_its_task_runs_and_all_before_an_end_is_told(node: Node) -> None:
    node.say("1")
    node.say("2")
    assert node.said() == []
    node.lines.before_run("other")
    assert node.said() == []
    node.lines.before_run("1")
    assert node.said() == ["1", "2"]
    node.say("3")
    node.lines.write()
    assert node.said() == ["1", "2", "3"]


def test_a_line_that_nobody_writes_in_time_is_written_at_once(node: Node) -> None:
    node.lines.received(node.logger, TEMPLATE, CONTEXT, may_wait=False)
    assert node.said() == ["1"]
    node.lines.is_batching = False
    node.say("2")
    assert node.said() == ["1", "2"]


LISTENERS: dict[str, Callable[[Node], Any]] = {
    "root": lambda node: node.root,
    "the logger": lambda node: node.logger,
}


@pytest.mark.parametrize("place", LISTENERS)
def test_a_handler_of_others_sees_each_record_at_once_on_its_thread(node: Node, place: str) -> None:
    node.say("1")
    keeper = Keeper()
    LISTENERS[place](node).addHandler(keeper)
    node.say("2")
    assert keeper.seen == [("Task shop.add[2] received", threading.get_ident())]
    assert node.said() == ["1", "2"]
    LISTENERS[place](node).removeHandler(keeper)
    node.say("3")
    assert node.said() == ["1", "2"]


def only_odd(record: logging.LogRecord) -> bool:
    return "[1]" in record.getMessage()


CHANGES: dict[str, Callable[[Node, pytest.MonkeyPatch], object]] = {
    "a formatter": lambda node, _: node.handler.setFormatter(logging.Formatter("mine %(message)s")),
    "a filter of the handler": lambda node, _: node.handler.addFilter(only_odd),
    "a filter of the logger": lambda node, _: node.logger.addFilter(only_odd),
    "a level": lambda node, _: node.handler.setLevel(logging.WARNING),
    "nothing passed on": lambda node, _: setattr(node.logger, "propagate", False),
    "a method of Logger": lambda _, patch: patch.setattr(
        logging.Logger, "callHandlers", lambda self, record: self.root.handlers[0].handle(record)
    ),
    "another class of loggers": lambda node, _: setattr(
        node.logger, "__class__", type("Other", (logging.Logger,), {"_log": lambda *_, **__: None})
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_program_has_changed_holds_for_lines_of_tasks(
    node: Node, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.say("0")
    CHANGES[change](node, monkeypatch)
    node.say("1")
    node.say("2")
    written = node.log.read_text() if node.log.exists() else ""
    node.logger.info(TEMPLATE, {**CONTEXT, "id": "1"}, extra={"data": CONTEXT})
    expected = {"a formatter": ["0", "1", "2"], "a filter of the handler": ["0", "1"]}
    assert re.findall(r"shop\.add\[(.*?)\]", written) == expected.get(change, ["0", "1"] if "filter" in change else [])
    if change == "a formatter":
        assert "mine Task shop.add[1]" in written


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize("value", [{1, 2}, CYCLE, {(1, 2): 3}], ids=["a set", "a cycle", "a key that is a tuple"])
def test_json_that_cannot_be_made_quickly_is_made_as_of_a_record(node: Node, value: object) -> None:
    node.handler.use(JSONFormatter(TASK_FIELDS), [])
    node.lines.received(node.logger, TEMPLATE, {**CONTEXT, "eta": value}, may_wait=False)
    line = json.loads(node.log.read_text())
    assert line["message"] == "Task shop.add[1] received"
    assert line["task_id"] is None


# --- handlers ---------------------------------------------------------------------------------------


def test_celery_installs_handlers_of_ours_and_they_are_what_programs_expect(tmp_path: Path) -> None:
    detect = Logging._detect_handler
    file, stream = detect(None, tmp_path / "log"), detect(None, None)
    assert isinstance(file, FileHandler | logging.handlers.WatchedFileHandler)
    assert isinstance(stream, LineHandler | logging.StreamHandler)
    other = detect(None, str(tmp_path / "log"))
    assert file.writer is other.writer
    file.close()
    other.close()


def test_a_stream_that_is_no_file_is_written_to_as_ever() -> None:
    import io

    text = io.StringIO()
    handler = LineHandler(text)
    handler.handle(logging.LogRecord("x", logging.INFO, "x", 1, "hello", None, None))
    assert text.getvalue() == "hello\n"


def test_a_stream_that_was_exchanged_is_followed(tmp_path: Path) -> None:
    with (tmp_path / "one").open("w") as one, (tmp_path / "two").open("w") as two:
        handler = LineHandler(one)
        for stream in (one, two):
            handler.setStream(stream)
            handler.handle(logging.LogRecord("x", logging.INFO, "x", 1, stream.name[-3:], None, None))
        assert ((tmp_path / "one").read_text(), (tmp_path / "two").read_text()) == ("one\n", "two\n")
