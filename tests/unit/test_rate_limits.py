"""The turns of a rate limit: none is faster than its rate, none is slower for messages that go to other nodes."""

from __future__ import annotations

import heapq
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskapp.worker.consume.rate_limits import AHEAD_MOST, AHEAD_SECONDS, ASIDE_A_SECOND, Turns
from tests.support import examples

CLAIM_SECONDS = 0.0005
LATE_SECONDS = 0.02


class World:
    """Nodes that claim messages by chance: those that were put off come a little late."""

    def __init__(self, messages: int, rate: float, nodes: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.nodes = [Turns(rate, random.Random(number)) for number in range(nodes)]
        self.rate = rate
        self.coming = [(number * CLAIM_SECONDS, number) for number in range(messages)]
        self.ran: list[list[float]] = [[] for _ in range(nodes)]
        self.put_off = 0

    def play(self) -> World:
        while self.coming:
            now, message = heapq.heappop(self.coming)
            node = self.random.randrange(len(self.nodes))
            place = self.nodes[node].place(now)
            if place.is_kept:
                self.ran[node].append(now + place.seconds)
            else:
                self.put_off += 1
                late_seconds = self.random.random() * LATE_SECONDS
                heapq.heappush(self.coming, (now + place.seconds + late_seconds, message))
        return self

    @property
    def took_seconds(self) -> float:
        times = [time for times in self.ran for time in times]
        return max(times) - min(times)


@given(
    messages=st.integers(2, 400), rate=st.sampled_from([0.5, 1, 7, 20, 100, 1_000]), nodes=st.integers(1, 4),
    seed=st.integers(0, 1_000),
)  # fmt: skip
@settings(deadline=None, max_examples=examples(60))
def test_each_node_keeps_its_rate_and_every_message_runs_once(messages, rate, nodes, seed):
    world = World(messages, rate, nodes, seed).play()
    assert sum(map(len, world.ran)) == messages
    for times in world.ran:
        assert all(later - earlier >= 1 / rate - 1e-6 for earlier, later in pairwise(times))


@pytest.mark.parametrize(
    ("messages", "rate", "nodes"), [(60, 20, 1), (600, 20, 1), (600, 20, 2), (600, 20, 4), (3_000, 500, 2)]
)
def test_no_turn_is_lost_to_messages_that_come_back_early_late_or_to_another_node(messages, rate, nodes):
    world = World(messages, rate, nodes, 1).play()
    assert world.took_seconds <= 1.1 * messages / rate / nodes + AHEAD_SECONDS


def test_a_message_is_kept_only_shortly_before_its_turn():
    for rate in (0.1, 20, 10_000):
        turns = Turns(rate)
        kept = [place.seconds for place in (turns.place(0.0) for _ in range(1_000)) if place.is_kept]
        assert max(kept) <= AHEAD_SECONDS
        assert len(kept) <= AHEAD_MOST + 1


def test_many_that_wait_come_to_ask_less_often():
    turns, asked = Turns(20, random.Random(1)), 0
    coming = [(number * CLAIM_SECONDS, number) for number in range(20_000)]
    while coming[0][0] < 120:
        now, message = heapq.heappop(coming)
        place = turns.place(now)
        asked += now > 60
        if not place.is_kept:
            heapq.heappush(coming, (now + place.seconds, message))
    assert asked <= 60 * 2 * ASIDE_A_SECOND
