from __future__ import annotations

import threading
from typing import Any

import pytest
from redis import ConnectionError as RedisConnectionError
from redis import ResponseError

from taskapp.engine.settlement import ChordPart, Settlement, collecting, settling
from taskapp.results import deferred_store
from taskapp.results.deferred_store import DeferredStore, Ended
from taskapp.results.store import CountedPart, Fence, Record
from tests.support import eventually


class Server:
    """A result server that stores when it may, and says what happened in which order."""

    def __init__(self) -> None:
        self.happened: list[Any] = []
        self.is_back = threading.Event()
        self.refuses: Exception | None = None

    def store(self, settlement: Settlement) -> None:
        self.is_back.wait(10)
        if self.refuses is not None:
            raise self.refuses
        self.happened += [("stored", step.task_id) for step in settlement.external_writes]

    def ended(self, task_id: str, value: bytes = b"") -> Ended:
        settlement = Settlement()
        settlement.external_writes.append(Record(task_id, b"", value, 0, is_final=True, fence=Fence()))
        return Ended(
            settlement,
            lambda: self.happened.append(("settled", task_id)),
            lambda error: self.happened.append(("refused", task_id, str(error))),
        )


@pytest.fixture
def server() -> Server:
    return Server()


def test_runs_are_settled_after_what_they_left_is_stored_in_the_order_they_ended(server):
    waiting = DeferredStore(server.store)

    for task_id in "abc":
        waiting.put(server.ended(task_id))
    assert server.happened == []
    server.is_back.set()

    assert waiting.finish(10)
    assert server.happened == [(what, task_id) for task_id in "abc" for what in ("stored", "settled")]


def test_no_more_runs_begin_when_too_many_or_too_large_ones_wait(server, monkeypatch):
    monkeypatch.setattr(deferred_store, "MOST_RUNS", 3)
    monkeypatch.setattr(deferred_store, "MOST_BYTES", 100)
    many, large = DeferredStore(server.store), DeferredStore(server.store)

    for task_id in "ab":
        many.put(server.ended(task_id))
    assert many.has_room()
    many.put(server.ended("c"))
    large.put(server.ended("d", value=b"x" * 100))

    assert not many.has_room()
    assert not large.has_room()
    assert not many.finish(0.01)
    server.is_back.set()
    assert many.finish(10)
    assert large.finish(10)
    assert many.has_room()
    assert large.has_room()


def test_what_is_refused_for_good_is_said_of_its_run_alone(server):
    server.is_back.set()
    server.refuses = ResponseError("WRONGTYPE")
    waiting = DeferredStore(server.store)
    waiting.put(server.ended("a"))
    assert waiting.finish(10)

    server.refuses = None
    waiting.put(server.ended("b"))

    assert waiting.finish(10)
    assert server.happened == [("refused", "a", "WRONGTYPE"), ("stored", "b"), ("settled", "b")]


def test_a_run_whose_end_raises_leaves_the_others_their_turn(server, monkeypatch):
    server.is_back.set()
    waiting = DeferredStore(server.store)
    waiting.put(server.ended("a")._replace(settle=lambda: 1 / 0))
    waiting.put(server.ended("b"))

    assert waiting.finish(10)
    assert server.happened[-1] == ("settled", "b")


def test_a_server_that_is_given_up_is_asked_again(server, monkeypatch):
    monkeypatch.setattr(deferred_store, "AGAIN_SECONDS", 0.01)
    server.is_back.set()
    server.refuses = RedisConnectionError("away")
    waiting = DeferredStore(server.store)
    waiting.put(server.ended("a"))
    assert not waiting.finish(0.1)

    server.refuses = None

    eventually(lambda: server.happened == [("stored", "a"), ("settled", "a")])


def test_what_was_left_for_a_success_is_forgotten_with_it():
    settlement = Settlement()
    with settling(settlement), collecting():
        settlement.external_writes.append(CountedPart(ChordPart("c", "t", 1, b"", 0), "default"))

    with settling(settlement), collecting(drop=True):
        pass

    assert settlement.external_writes == []
