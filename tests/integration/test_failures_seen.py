"""What clients, Flower and the command line see of failures and retries, whatever store the results are in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.events.state import State

from tests.integration import follow_ups
from tests.integration.follow_ups import add, awaits_a_chord_that_fails, fail, parents_of_retries, total
from tests.support import Process, RedisServer, eventually, start_worker

CHORDS: dict[str, Callable[[], Any]] = {
    "task": lambda: chord(header(), total.s()),
    "chain": lambda: chord(header(), chain(total.s(), add.s(1))),
    "group": lambda: chord(header(), group(total.s(), total.s())),
    "nested groups": lambda: chord(header(), group(group(total.s(), total.s()), total.s())),
    "chord": lambda: chord(header(), chord(group(total.s(), total.s()), total.s())),
    "chord and errbacks": lambda: chord(header(), group(total.s(), total.s()).on_error(follow_ups.add.si(1, 1))),
}


def header() -> list[Any]:
    return [fail.si("header"), add.si(1, 1)]


@pytest.fixture(scope="module")
def node(
    session_server: RedisServer, _web_process: Celery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    _web_process.set_current()
    node = start_worker(tmp_path_factory.mktemp("node"), session_server.url, TASKAPP_INCLUDE=follow_ups.__name__)
    yield node
    node.close()
    session_server.client.flushall()


def leaves(result: Any) -> list[Any]:
    return [leaf for member in result.results for leaf in leaves(member)] if hasattr(result, "results") else [result]


@pytest.mark.parametrize("body", CHORDS)
def test_a_chord_that_fails_raises_the_error_of_its_header(node: Process, body: str) -> None:
    result = CHORDS[body]().apply_async()

    with pytest.raises(ValueError, match="header"):
        result.get(timeout=20)
    with pytest.raises(ValueError, match="header"):
        asyncio.run(CHORDS[body]().apply_async().aget(timeout=20))
    for leaf in leaves(result):
        assert "header" in str(eventually(lambda leaf=leaf: leaf.result))
        assert leaf.state == "FAILURE"


@pytest.mark.parametrize("get", ["get", "aget"])
def test_it_does_so_when_it_was_there_before_anybody_asked(node: Process, get: str) -> None:
    result = CHORDS["task"]().apply_async()
    eventually(lambda: result.state == "FAILURE")

    with pytest.raises(ValueError, match="header"):
        asyncio.run(result.aget(timeout=20)) if get == "aget" else result.get(timeout=20)
    assert awaits_a_chord_that_fails.delay().get(timeout=20) == "ValueError('header')"


def test_a_retry_that_succeeds_shows_neither_an_error_nor_itself_as_parent(node: Process) -> None:
    app, state, heard = parents_of_retries.app, State(), threading.Event()

    def take(event: dict[str, Any]) -> None:
        state.event(event)
        heard.set()

    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": take})
        # Without leaving: what comes between two subscriptions is lost.
        thread = threading.Thread(target=receiver.capture, kwargs={"limit": None, "wakeup": False}, daemon=True)
        thread.start()
        try:
            with app.events.default_dispatcher() as dispatcher:
                eventually(lambda: [dispatcher.send("test-listens"), heard.wait(0.1)][1])
            result = parents_of_retries.delay()
            assert result.get(timeout=20) == [result.id, result.id, None]
            task = eventually(lambda: (found := state.tasks.get(result.id)) and found.state == "SUCCESS" and found)
        finally:
            receiver.should_stop = True
            thread.join(5)

    assert (task.retries, task.parent_id) == (2, None)
    assert (task.exception, task.traceback) == (None, None)
