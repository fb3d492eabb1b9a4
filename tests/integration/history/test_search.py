"""Searching: pages against what they should hold, on SQLite always, on PostgreSQL and MariaDB where they are."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskapp.engine.completions import STATES, Finished
from taskapp.errors.history import BadCursor, HistoryAway, UnknownState
from taskapp.monitor.history import History, Query, search, text_search
from tests.integration.databases import DATABASES, Database, running
from tests.support import eventually

NOW_US = 1_800_000_000_000_000


@pytest.fixture(scope="module", params=["sqlite", *DATABASES])
def server(request: pytest.FixtureRequest) -> Iterator[Database | None]:
    """A real server; ``None`` for SQLite, which needs none."""
    if request.param == "sqlite":
        yield None
        return
    with running(request.param) as server:
        yield server


@pytest.fixture
def history(server: Database | None, tmp_path: Path) -> Iterator[History]:
    """An empty history."""
    made = History(server.url if server is not None else f"sqlite:///{tmp_path}/history.sqlite")
    made.create()
    yield made
    while made.prune(-(10**9)):
        pass


def some(count: int) -> list[Finished]:
    """Tasks of all kinds; many finished in the same microsecond."""
    dice = random.Random(count)
    return [
        Finished(
            NOW_US + dice.randrange(count // 3) * 1_000_000, f"id-{dice.choice('aA')}{number}",
            dice.choice(["shop.pay", "shop.Pay", "shop.ship", "x"]), dice.choice(["default", "low"]),
            dice.choice(STATES),
            priority=number % 10, args=dice.choice(["('Anna', 100%)", "('bob_', 5)", "('\N{GRINNING FACE}',)"]),
            kwargs=dice.choice(["{}", "{'order': 7}", "{'a/b': '\\\\'}"]), traceback="Traceback …\n" * 3,
            run_seconds=None if number % 3 else 0.25, sent_at=1.5, attempts=number,
        )
        for number in range(count)
    ]  # fmt: skip


def fits(one: Finished, query: Query) -> bool:
    return (
        query.type in (None, one.type)
        and (not query.states or one.state in [search.state_named(state) for state in query.states])
        and query.queue in (None, one.queue)
        and (query.since is None or one.finished_at >= query.since)
        and (query.until is None or one.finished_at < query.until)
        and (not query.text or query.text.lower() in one.args.lower() or query.text.lower() in one.kwargs.lower())
    )


def all_pages(history: History, query: Query, limit: int) -> list[Finished]:
    found: list[Finished] = []
    after = None
    while True:
        page = history.search(query, limit, after)
        assert len(page.tasks) <= limit
        found += page.tasks
        if page.next is None:
            return found
        assert page.next != after
        after = page.next


QUERIES = [
    Query(),
    Query(type="shop.pay"),
    Query(type="shop.none"),
    Query(states=["failed"]),
    Query(states=["FAILURE", "dead", "Succeeded"]),
    Query(queue="low", states=["cancelled"]),
    Query(type="shop.ship", queue="default"),
    Query(since=NOW_US / 1e6 + 20, until=NOW_US / 1e6 + 60),
    Query(text="anna"),
    Query(text="100%"),
    Query(text="bob_'"),
    Query(text="_"),
    Query(text="a/B"),
    Query(text="\\"),
    Query(text="\N{GRINNING FACE}", type="shop.Pay"),
    Query(text="order", states=["dead", "failed", "ignored"], queue="default"),
    Query(text="nowhere"),
]


@pytest.mark.quick("sqlite-*", "postgresql-30-*")
@pytest.mark.parametrize(("looked_at", "seconds"), [(30, 60.0), (1_000, 60.0), (1_000, 0.0)])
def test_the_pages_hold_each_task_that_fits_once_and_the_newest_first(
    history: History, monkeypatch: pytest.MonkeyPatch, looked_at: int, seconds: float
) -> None:
    tasks = some(300)
    history.add(tasks)
    monkeypatch.setattr(text_search, "LOOKED_AT_MOST", looked_at)
    monkeypatch.setattr(text_search, "FIRST_STEP", 10)
    monkeypatch.setattr(text_search, "SECONDS_MOST", seconds)

    for query in QUERIES:
        expected = sorted(
            (one.id for one in tasks if fits(one, query)),
            key={one.id: (one.finished_us, one.id) for one in tasks}.__getitem__, reverse=True,
        )  # fmt: skip
        for limit in (7, 1_000):
            assert [one.id for one in all_pages(history, query, limit)] == expected, query


def test_a_text_is_looked_for_in_steps_that_grow_until_time_is_up(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.add(some(300))
    clock = iter(range(1_000))
    monkeypatch.setattr(text_search, "monotonic", lambda: next(clock))
    monkeypatch.setattr(text_search, "FIRST_STEP", 10)

    # Each step takes a second.
    monkeypatch.setattr(text_search, "SECONDS_MOST", 3.0)
    page = history.search(Query(text="nowhere"))
    seen = [one.id for one in history.search(Query(), limit=1_000).tasks]

    assert page.tasks == []
    # 10, 20 and as many as fit into the second that is left.
    assert page.next is not None
    assert seen.index(page.next.partition("-")[2]) + 1 == 10 + 20 + 20


def test_what_was_written_is_read_as_it_was(history: History) -> None:
    tasks = some(10)
    history.add(tasks)
    history.add(tasks)

    assert history.count() == 10
    for one in tasks:
        assert history.get(one.id) == [one]
    assert history.get(tasks[0].id.swapcase()) == []
    assert history.search(Query()).tasks[0].traceback == ""


def test_texts_of_any_length_a_record_may_have_fit(history: History) -> None:
    face = "\N{GRINNING FACE}"
    huge = Finished(
        NOW_US, face * 255, face * 255, face * 255, "succeeded", node=face * 255, args=face * 1_024,
        result=face * 1_024, error=face * 2_000, root_id=face * 255, traceback=face * 10_000,
        attempts=2**31 - 1, priority=9,
    )  # fmt: skip

    history.add([huge])

    assert history.get(huge.id) == [huge]


def test_two_that_write_the_same_at_once_write_it_once(history: History) -> None:
    tasks = some(900)
    errors: list[Exception] = []

    def write(batches: list[list[Finished]]) -> None:
        for batch in batches:
            try:
                history.add(batch)
            except HistoryAway as error:  # two in each other's way: a writer tries once more
                errors.append(error)
                history.add(batch)

    batches = [tasks[start : start + 100] for start in range(0, 900, 100)]
    threads = [threading.Thread(target=write, args=(way,)) for way in (batches, batches[::-1], batches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert history.count() == 900, errors


def test_old_tasks_go_a_thousand_at_a_time(history: History) -> None:
    old_us = int((time.time() - 1_000) * 1_000_000)
    history.add([Finished(old_us + number // 50, f"{number}", "t", "q", "failed") for number in range(1_700)])
    history.add([Finished(int(time.time() * 1_000_000), "new", "t", "q", "failed")])

    assert history.prune(2_000) == 0
    first, second, third = (history.prune(500) for _ in range(3))

    assert 1_000 <= first <= 1_050
    assert first + second == 1_700
    assert third == 0
    assert [one.id for one in history.search(Query()).tasks] == ["new"]


def test_what_cannot_be_meant_is_said_in_a_sentence(history: History) -> None:
    with pytest.raises(UnknownState, match="no final state named 'faild'; did you mean 'failed'\\?"):
        history.search(Query(states=["faild"]))
    for text in ("", "12", "x-1", "-1-x", "9" * 40 + "-x", "\N{SUPERSCRIPT TWO}-x"):
        with pytest.raises(BadCursor, match="is not a valid cursor of the history"):
            history.search(Query(), after=text)


def test_a_server_that_dies_is_said_in_a_sentence_and_comes_back(server: Database | None, history: History) -> None:
    if server is None:
        pytest.skip("SQLite has no server")
    history.add(some(3))
    server.kill()

    with pytest.raises(HistoryAway, match="cannot be used") as away:
        history.search(Query())
    assert "hunter2" not in str(away.value)

    server.start()

    def count() -> int:
        try:
            return history.count()
        except HistoryAway:
            return 0

    assert eventually(count) == 3
