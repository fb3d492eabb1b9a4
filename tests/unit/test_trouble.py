"""An outage is reported once when it begins and once when it is over, whichever parts notice it and in what order."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskapp.redis import trouble
from taskapp.redis.link import REFUSALS
from taskapp.redis.trouble import ServerHealth, Trouble


class Part:
    pass


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(re.sub(r"[\d.]+ s", "T", record.getMessage()))


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    trouble.logger.addHandler(handler)
    yield handler
    trouble.logger.removeHandler(handler)


def test_a_part_that_fails_once_more_after_another_found_the_server_back_is_not_heard(kept: Kept) -> None:
    server, one, other = ServerHealth("broker"), Part(), Part()
    for part in (one, other, one, other):
        server.failed(part, "refused")
    server.works(one)
    server.failed(other, "refused")
    server.works(other)
    assert kept.said == ["the broker is away: refused; trying again", "the broker is back after T"]
    server.failed(other, "reset")
    assert kept.said[2:] == ["the broker is away: reset; trying again"]


def test_a_refusal_is_named_once_though_the_server_was_away_for_another_reason(kept: Kept) -> None:
    server, one, other = ServerHealth("broker"), Part(), Part()
    for error in ("reset", "MISCONF the disk is full", "MISCONF the disk is full", "READONLY a replica"):
        server.failed(one, error)
        server.failed(other, error)
    server.works(one)
    server.failed(other, "MISCONF the disk is full")  # its attempt began before
    assert kept.said == [
        "the broker is away: reset; trying again", "the broker is still away: MISCONF the disk is full; trying again",
        "the broker is still away: READONLY a replica; trying again", "the broker is back after T",
    ]  # fmt: skip


@given(
    down=st.lists(st.tuples(st.integers(0, 4), st.text(max_size=5) | st.sampled_from(REFUSALS)), min_size=1),
    up=st.permutations(range(5)), late=st.lists(st.integers(0, 4)),
)  # fmt: skip
def test_any_number_of_failures_are_one_outage(down: list[tuple[int, str]], up: list[int], late: list[int]) -> None:
    handler = Kept()
    trouble.logger.addHandler(handler)
    try:
        server, parts = ServerHealth("broker"), [Part() for _ in range(5)]
        for number, text in down:
            server.failed(parts[number], text)
        first = next(number for number in up if number in {number for number, _ in down})
        server.works(parts[first])
        for number in late:  # their attempts began before
            if number in {number for number, _ in down} - {first}:
                server.failed(parts[number], "late")
        for number in up:
            server.works(parts[number])
    finally:
        trouble.logger.removeHandler(handler)
    first_refusal, *others = [next((word for word in REFUSALS if word in text), "") for _, text in down]
    refusals = set(others) - {first_refusal, ""}  # each is named once
    assert [text.partition(":")[0] for text in handler.said] == [
        "the broker is away", *["the broker is still away"] * len(refusals), "the broker is back after T",
    ]  # fmt: skip


def test_a_child_process_knows_nothing_of_its_parent_s_outage() -> None:
    part = Part()
    trouble.broker.failed(part, "refused")
    try:
        child = os.fork()
        if not child:
            os._exit(0 if not trouble.broker._away else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        trouble.broker.works(part)


def test_a_refusal_is_no_outage(kept: Kept) -> None:
    one = Trouble()
    for port in (1, 2):
        one.refused("the broker refuses claims: %s", f"READONLY at port {port}")
    one.end()
    one.end()
    assert kept.said == [
        "the broker refuses claims: READONLY at port 1; trying again", "the broker accepts it again after T",
    ]  # fmt: skip
