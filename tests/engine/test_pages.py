"""Pages of dead letters and of schedules: together they are all there is, each once, in order."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from taskapp.engine.dead_letters import REASONS, DeadLetters
from taskapp.engine.dead_pages import CHUNK, DeadPages, Listed, Wanted
from taskapp.redis.link import Link
from taskapp.schedules.pages import SchedulePage, page
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.store import Schedules
from taskapp.schedules.times import parse_when

QUEUES = ("default", "low", "a/b")


def bury(link: Link, queue: str, number: int, score: float, *, raw: bytes = b"raw", **about: Any) -> None:
    reason = about.get("reason", "failed")
    said = {
        "reason": reason, "queue": queue, "priority": 0, "deliveries": 1, "crashes": 0, "id": f"id-{number}",
        "task": "shop.pay", "node": "w1@host", "error": "boom", "buried_at": int(score), **about,
    }  # fmt: skip
    link.command("SADD", "taskapp:queues", queue)
    link.command("ZADD", f"taskapp:{{{queue}}}:dead:{reason}", repr(score), number)
    link.command("HSET", f"taskapp:{{{queue}}}:dead:raw", number, raw)
    link.command("HSET", f"taskapp:{{{queue}}}:dead:about", number, json.dumps(said))


def all_pages(letters: DeadLetters, wanted: Wanted, limit: int) -> list[Listed]:
    found, cursor = list[Listed](), ""
    while True:
        one = letters.page(wanted, cursor, limit)
        assert len(one.letters) <= limit
        found += one.letters
        if not one.cursor:
            return found
        cursor = one.cursor


@pytest.mark.parametrize("limit", [1, 7, 50, 1_000])
def test_pages_of_letters_are_all_letters_once_the_latest_first(link: Link, letters: DeadLetters, limit: int) -> None:
    random.seed(limit)
    buried = []
    for number in range(1, 301):
        # Many at the same moment, in several sets.
        queue, reason, score = random.choice(QUEUES), random.choice(REASONS), float(random.randrange(1_000, 1_020))
        bury(link, queue, number, score, reason=reason)
        buried.append((score, queue, reason, number))

    found = all_pages(letters, Wanted(), limit)

    assert sorted((each.queue, each.number) for each in found) == sorted((queue, n) for _, queue, _, n in buried)
    assert [each.buried_at for each in found] == sorted((each.buried_at for each in found), reverse=True)


def test_more_letters_of_one_moment_than_are_asked_for_at_once(link: Link, letters: DeadLetters) -> None:
    for number in range(1, 2 * CHUNK + 50):
        bury(link, "default", number, 5_000.0)

    found = all_pages(letters, Wanted(), 60)

    assert sorted(each.number for each in found) == list(range(1, 2 * CHUNK + 50))


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Wanted(), {1, 2, 3, 4}), (Wanted(queue="low"), {3, 4}), (Wanted(reason="crashed"), {2, 4}),
        (Wanted(queue="low", reason="failed"), {3}), (Wanted(text="BANK"), {2}), (Wanted(text="id-3"), {3}),
        (Wanted(text="mail"), {4}), (Wanted(until=2.0), {1, 2}), (Wanted(queue="none"), set()),
    ],
)  # fmt: skip
def test_only_what_is_wanted_is_found(link: Link, letters: DeadLetters, wanted: Wanted, numbers: set[int]) -> None:
    bury(link, "default", 1, 1_000.0)
    bury(link, "default", 2, 2_000.0, reason="crashed", error="the Bank is away")
    bury(link, "low", 3, 3_000.0)
    bury(link, "low", 4, 4_000.0, reason="crashed", task="shop.mail")

    assert {each.number for each in all_pages(letters, wanted, 1)} == numbers


def test_a_search_ends_in_time_and_goes_on_where_it_was(link: Link, letters: DeadLetters) -> None:
    for number in range(1, 101):
        bury(link, "default", number, float(number), error="needle" if number == 3 else "hay")
    pages = DeadPages(link, "", [("default", "failed")])

    first = pages.page(Wanted(text="needle"), limit=5, within_seconds=0.0)

    assert first.letters == []
    assert first.cursor
    assert [each.number for each in pages.page(Wanted(text="needle"), first.cursor, 5).letters] == [3]


def test_a_message_that_names_itself_only_inside_is_named(link: Link, letters: DeadLetters) -> None:
    raw = json.dumps({"headers": {"id": "abc", "task": "shop.pay"}}).encode()
    bury(link, "default", 1, 1.0, raw=raw, id="", task="")
    bury(link, "default", 2, 2.0, raw=b"\x00\xff", id="", task="")

    assert [(each.id, each.task, each.message_bytes) for each in letters.page(Wanted()).letters] == [
        ("", "", 2), ("abc", "shop.pay", len(raw)),
    ]  # fmt: skip


def test_letters_that_go_between_two_pages_take_no_other_with_them(link: Link, letters: DeadLetters) -> None:
    for number in range(1, 11):
        bury(link, "default", number, 1_000.0)
    first = letters.page(Wanted(), limit=5)
    letters.purge("default", [each.number for each in first.letters])

    second = letters.page(Wanted(), first.cursor, 5)

    assert len({each.number for each in (*first.letters, *second.letters)}) == 10


@pytest.mark.parametrize("cursor", ["x", "[]", "[1,2,3]", '["a","b","c","d"]', "[" * 10_000, "null"])
def test_a_cursor_that_is_none_is_refused(letters: DeadLetters, cursor: str) -> None:
    with pytest.raises(ValueError, match="is not a valid cursor; start with the first page"):
        letters.page(Wanted(), cursor)


# --- schedules -------------------------------------------------------------------------------------

NAMES = ("a", "a/1", "a/2", "b", "b/ü", "z", "ü")


@pytest.fixture
def store(link: Link) -> Schedules:
    store = Schedules(link, "", lambda *_: ())
    for name in NAMES:
        store.add(Schedule(name, "taskapp.add", parse_when("every 1h")))
    for name in ("a/2", "b/ü", "z"):
        store.pause(name)
    return store


def names_of(turn: Callable[[str], SchedulePage]) -> list[str]:
    found, cursor = list[str](), ""
    while True:
        one = turn(cursor)
        found += [known.schedule.name for known in one.schedules]
        if not one.cursor:
            return found
        cursor = one.cursor


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("most", [0, 1_000])
def test_pages_of_schedules_are_all_that_fit_by_name(
    store: Schedules, limit: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskapp.schedules.pages.LISTED_MOST", most)

    def found(prefix: str = "", state: str = "") -> list[str]:
        return names_of(lambda after: page(store, prefix, state, after, limit))

    assert found() == list(NAMES)
    assert found("a") == ["a", "a/1", "a/2"]
    assert found("b/") == ["b/ü"]
    assert found(state="paused") == ["a/2", "b/ü", "z"]
    assert found("b", "paused") == ["b/ü"]
    assert found(state="active") == ["a", "a/1", "b", "ü"]
    assert found(state="broken") == found(state="ended") == []


def test_a_search_among_schedules_ends_in_time_and_goes_on_where_it_was(store: Schedules) -> None:
    turns = []

    def turn(after: str) -> SchedulePage:
        turns.append(page(store, state="ended", after=after, within_seconds=0.0))
        return turns[-1]

    assert names_of(turn) == []
    assert len(turns) == len(NAMES) + 1
