"""What a run's settlement collects, and what goes on its way at once."""

from __future__ import annotations

import asyncio
import math
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from taskapp.engine import settlement as settlements
from taskapp.engine.producer import Message
from taskapp.engine.settlement import (
    Chord,
    ChordPart,
    Event,
    Result,
    Settlement,
    collecting,
    current,
    settling,
    tick_of,
)
from taskapp.errors import TooManyFollowUps


class Announced(NamedTuple):
    topic: str

    def publication(self, messages: Sequence[Message]) -> tuple[str, bytes]:
        return self.topic, b",".join(message.event for message in messages)


def message(name: str) -> Message:
    return Message("default", 0, 0, name, name.encode(), b"news", Announced("topic"))


def whole() -> Settlement:
    """Return a settlement with one of everything."""
    made = Settlement()
    made.results.append(Result("key", b"value", 60))
    made.chords.append(Chord("chord", 2, b"about", b"finish", 60))
    made.parts.append(ChordPart("chord", "slot", 1, b"value", 60))
    made.finished.append("other")
    made.add(message("a"))
    made.events.append(Event("channel", b"event"))
    return made


def test_only_what_is_sent_while_collecting_is_collected():
    run = Settlement()
    assert current() is None
    with settling(run):
        assert current() is None  # a task's own delay() goes out at once
        with collecting():
            assert current() is run
        assert current() is None
    with collecting():
        assert current() is None  # no run, nothing to wait for


def test_a_run_inside_a_run_collects_for_itself_and_one_without_a_settlement_for_nobody():
    outer, inner = Settlement(), Settlement()
    with settling(outer), collecting():
        with settling(inner), collecting():
            assert current() is inner
        with settling(None), collecting():
            assert current() is None
        assert current() is outer


def test_an_error_inside_ends_collecting_too():
    with settling(Settlement()):
        with pytest.raises(ZeroDivisionError), collecting():
            raise ZeroDivisionError
        assert current() is None
    with collecting():
        assert current() is None


def test_coroutines_side_by_side_collect_each_for_its_own_run():
    async def run(name: str) -> tuple[str, list[str]]:
        mine = Settlement()
        with settling(mine):
            await asyncio.sleep(0)
            with collecting():
                await asyncio.sleep(0)
                found = current()
                assert found is not None
                found.add(message(name))
        return name, [each.id for each in mine.messages]

    async def many() -> list[tuple[str, list[str]]]:
        return await asyncio.gather(*(run(str(n)) for n in range(200)))

    assert asyncio.run(many()) == [(str(n), [str(n)]) for n in range(200)]


def test_what_a_body_started_in_the_background_is_not_collected_when_its_run_ends():
    async def background(may_send: asyncio.Event) -> Settlement | None:
        await may_send.wait()
        return current()

    async def run() -> Settlement | None:
        with settling(Settlement()):
            may_send = asyncio.Event()
            task = asyncio.create_task(background(may_send))
            with collecting():
                may_send.set()
                return await task

    assert asyncio.run(run()) is None


def test_threads_know_nothing_of_each_others_runs():
    together = threading.Barrier(8)

    def run(name: int) -> bool:
        mine = Settlement()
        with settling(mine), collecting():
            together.wait(10)
            return current() is mine

    with ThreadPoolExecutor(8) as threads, settling(Settlement()), collecting():
        assert all(threads.map(run, range(8)))
        assert threads.submit(current).result() is None


def test_a_failure_drops_what_a_success_would_leave_but_not_what_was_kept():
    run = Settlement()
    with settling(run):
        with collecting(keep=True):
            run.add(message("retry"))
        with collecting():
            run.add(message("link"))
            run.results.append(Result("key", b"success", 0))
            run.parts.append(ChordPart("chord", "slot", 1, b"", 0))
        with collecting(drop=True):
            run.results.append(Result("key", b"failure", 0))

    assert [each.id for each in run.messages] == ["retry"]
    assert (run.results, run.parts) == ([Result("key", b"failure", 0)], [])


def test_a_settlement_comes_whole_out_of_a_child_process():
    assert pickle.loads(pickle.dumps(whole())).steps() == whole().steps()


def test_a_result_is_the_last_step_of_its_claim():
    assert whole().steps() == [
        "O", "chord", 2, b"about", b"finish", 60,
        "C", "chord", "slot", 1, b"value", 60,
        "F", "other",
        "M", "default", 0, 0, "a", b"a", "E", "topic", b"news",
        "E", "channel", b"event",
        "R", "key", b"value", 60,
    ]  # fmt: skip


def test_results_alone_can_be_kept():
    run = whole()
    run.keep_results_only()
    assert run.steps() == ["R", "key", b"value", 60]


def test_there_is_an_end_to_follow_ups(monkeypatch):
    monkeypatch.setattr(settlements, "FOLLOW_UPS_MOST", 2)
    run = Settlement()
    run.add(message("a"))
    run.add(message("b"))
    with pytest.raises(TooManyFollowUps):
        run.add(message("c"))
    assert len(run.messages) == 2


@pytest.mark.parametrize("schedule", [None, 1, [], {}, True, b"job", "\ud800"])
def test_headers_that_name_no_schedule_are_those_of_no_tick(schedule: object):
    assert tick_of({"id": "a", "taskapp_schedule": schedule, "taskapp_due_at": 1.0}) is None


@pytest.mark.parametrize("due_at", [None, "1", [], {}, math.nan, math.inf, b"1"])
def test_headers_without_a_due_time_are_those_of_no_tick(due_at: object):
    assert tick_of({"id": "a", "taskapp_schedule": "job", "taskapp_due_at": due_at}) is None


@pytest.mark.parametrize("identity", [None, 1, [], "\ud800"])
def test_headers_without_an_id_are_those_of_no_tick(identity: object):
    assert tick_of({"id": identity, "taskapp_schedule": "job", "taskapp_due_at": 1.0}) is None


def test_the_headers_of_a_tick_name_it():
    assert tick_of({"id": "a", "taskapp_schedule": "job", "taskapp_due_at": 1.5}) == ("job", "a", 1_500)
