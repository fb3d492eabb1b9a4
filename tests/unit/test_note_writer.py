"""What tasks say of themselves waits for nothing, and is bounded whatever becomes of the server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import ResponseError

from taskapp.engine.counters import CountedRun
from taskapp.engine.runtime import role
from taskapp.errors import BrokerNotFound, InvalidSetting
from taskapp.execution.note_writer import LINES_MOST, NoteWriter
from taskapp.redis.link import NotSent, OutcomeUnknown
from tests.support import eventually


class Notes:
    """Stands in for a server: remembers batches, and is away on request."""

    def __init__(self) -> None:
        self.written: dict[int, Sequence[Any]] = {}
        self.problems: list[Exception] = []
        self.attempts: list[int] = []

    def write(self, _scribe: str, number: int, steps: Sequence[Any], _lines_most: int) -> None:
        self.attempts.append(number)
        for _, task_id, _ in steps:
            task_id.encode()
        if self.problems:
            raise self.problems.pop()
        self.written[number] = steps

    def all(self) -> list[tuple[str, str, bytes]]:
        return [step for number in sorted(self.written) for step in self.written[number]]


def test_the_last_word_of_many_is_written_and_the_first_at_once() -> None:
    notes = Notes()
    writer = NoteWriter(lambda: notes, 200)

    writer.progress("a", b"first")
    eventually(notes.all)
    for n in range(1_000):
        writer.progress("a", str(n).encode())
        writer.progress("b", str(n).encode())

    assert writer.flush(5)
    assert notes.all()[0] == ("P", "a", b"first")
    assert {one: text for _, one, text in notes.all()} == {"a": b"999", "b": b"999"}
    assert len(notes.all()) < 20


def test_words_of_many_threads_are_all_written_in_their_order() -> None:
    notes = Notes()
    writer = NoteWriter(lambda: notes, 10_000)

    def talk(name: str) -> None:
        for n in range(400):
            writer.line(name, str(n).encode())
            writer.retry(name, str(n).encode())
            time.sleep(0.0005)

    threads = [threading.Thread(target=talk, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert writer.flush(10)
    for kind in "LR":
        for name in ("t0", "t3"):
            said = [int(text) for step, one, text in notes.all() if (step, one) == (kind, name)]
            assert said == list(range(400))


@pytest.mark.parametrize("problem", [NotSent("away"), OutcomeUnknown("no answer")])
def test_a_server_that_is_away_gets_the_same_batch_again(problem: Exception, caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    notes.problems = [problem, problem]
    writer = NoteWriter(lambda: notes, 200)

    with caplog.at_level(logging.INFO):
        writer.line("a", b"x")
        eventually(notes.all, within_seconds=10)

    assert notes.attempts == [1, 1, 1]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_types_are_announced_before_runs_are_counted_and_again_to_a_server_that_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(role, "types", lambda: {"shop.mail": "thread"})
    notes = Notes()
    writer = NoteWriter(lambda: notes, 10)  # type: ignore[arg-type,return-value]
    writer.progress("a", b"1")
    assert writer.flush(5)
    assert [kind for kind, *_ in notes.all()] == ["P"]

    for _ in range(2):
        writer.count("default", CountedRun("shop.mail", "failed"))
        assert writer.flush(5)
    assert [kind for kind, *_ in notes.all()] == ["P", "T", "K", "K"]

    notes.problems.append(NotSent("away"))
    writer.progress("a", b"2")
    assert writer.flush(5)
    writer.count("default", CountedRun("shop.mail", "failed"))
    assert writer.flush(5)
    assert notes.all()[-2][:2] == ("T", "shop.mail")


def test_lines_beyond_what_is_kept_meanwhile_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    notes.problems = [NotSent("away")]
    writer = NoteWriter(lambda: notes, 200)
    writer.progress("z", b"x")
    eventually(lambda: notes.attempts)

    for task in range(100):
        for n in range(100):
            writer.line(f"t{task}", str(n).encode())
    writer.line("t3", b"over")

    assert writer.flush(10)
    lines = [step for step in notes.all() if step[0] == "L"]
    assert len(lines) == LINES_MOST
    assert [text for _, one, text in lines if one == "t3"][-2:] == [b"99", b"over"]
    assert f"dropped {10_001 - LINES_MOST} log lines of tasks" in caplog.text
    writer.line("later", b"x")
    assert writer.flush(10)
    assert notes.all()[-1][1] == "later"


def test_of_one_task_the_last_lines_are_kept() -> None:
    notes = Notes()
    notes.problems = [NotSent("away")]
    writer = NoteWriter(lambda: notes, 3)
    writer.progress("z", b"x")
    eventually(lambda: notes.attempts)

    for n in range(2 * LINES_MOST):
        writer.line("a", str(n).encode())

    assert writer.flush(10)
    assert [text for step, _, text in notes.all() if step == "L"] == [b"9997", b"9998", b"9999"]


def test_without_a_server_nothing_is_kept_and_progress_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    writer = NoteWriter(lambda: None, 200)

    writer.progress("a", b"x")
    eventually(lambda: caplog.records)
    for n in range(100):
        writer.progress(f"{n}", b"x")
        writer.line("a", b"x")
        writer.retry("a", b"x")

    assert writer.flush(1)
    assert [record.getMessage() for record in caplog.records] == [
        "progress of tasks is not kept: neither broker nor result backend is Redis; set TASKAPP_RESULT_URL to a Redis"
    ]
    assert (writer._progress, writer._lines, list(writer._retries)) == ({}, {}, [])


def test_a_server_that_is_found_later_gets_what_was_said_before() -> None:
    notes, answers = Notes(), [BrokerNotFound("none yet"), OSError("away")]

    def open_notes() -> Notes:
        if answers:
            raise answers.pop()
        return notes

    writer = NoteWriter(open_notes, 200)  # type: ignore[arg-type,return-value]
    writer.progress("a", b"x")

    assert eventually(notes.all) == [("P", "a", b"x")]


def test_what_can_never_be_opened_is_said_once_and_nothing_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    def open_notes() -> None:
        raise InvalidSetting("TASKAPP_REDIS_URL", "nonsense", "no URL")

    writer = NoteWriter(open_notes, 200)
    writer.progress("a", b"x")
    eventually(lambda: caplog.records)
    assert writer.flush(10)
    writer.progress("b", b"x")

    assert writer.flush(1)
    assert [record.getMessage() for record in caplog.records] == [
        "notes on tasks are not kept: could not open their store"
    ]


def test_whatever_is_wrong_with_some_notes_those_that_follow_are_written(caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    notes.problems = [TypeError("a fault of ours")]
    writer = NoteWriter(lambda: notes, 200)  # type: ignore[arg-type,return-value]
    writer.progress("a", b"x")
    assert writer.flush(10)
    writer.progress("b", b"x")
    assert writer.flush(10)

    assert notes.all() == [("P", "b", b"x")]
    assert "could not write 1 notes on tasks" in caplog.text


def test_what_is_refused_is_left_and_the_rest_is_written(caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    writer = NoteWriter(lambda: notes, 200)
    writer.progress("z", b"x")
    assert writer.flush(5)

    for one in ("a", "\udcff", "b"):
        writer.progress(one, b"x")
    assert writer.flush(5)
    notes.problems = [ResponseError("OOM")]
    writer.line("c", b"x")
    assert writer.flush(5)
    writer.line("d", b"x")
    assert writer.flush(5)

    assert [one for _, one, _ in notes.all()] == ["z", "a", "b", "d"]
    assert caplog.text.count("1 notes on tasks were refused") == 2
