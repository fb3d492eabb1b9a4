"""Leases over time, the engine's own: a dead node is noticed, and no absence of the server ends a lease that lives."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as NoConnection

from taskapp.engine.clock import Clock, Reading
from taskapp.engine.heartbeat import Heartbeat
from taskapp.engine.options import Options
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link
from tests.engine.world import World
from tests.support import RedisServer, examples

PREFIX = "shop:"
SET_TIME = (
    "local t = redis.call('TIME')redis.call('HSET', KEYS[1], 'offset', ARGV[1] - t[1] * 1000 - math.floor(t[2] / 1000))"
)
"""To the millisecond."""
PROMISED_SECONDS = 5.0
"""A dead node's messages are elsewhere a lease and so much later."""
LATEST_SHARE = 0.15
"""How late a beat may come on a machine that is busy, of a lease: less than half a beat."""
PATIENT = settings(
    max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

leases = st.sampled_from([3.0, 15.0])
shares = st.floats(0, 1)
lengths = st.floats(0.4, 0.8) | st.floats(0, 2.5)


class Absence(NamedTuple):
    """When the server is away, in seconds since the beginning."""

    begins: float = 0.0
    ends: float = 0.0


NEVER = Absence()


class HeldClock(Clock):
    """A clock that shows the time of a ``Timeline``."""

    def __init__(self, timeline: Timeline) -> None:
        super().__init__()
        self._timeline = timeline

    def predicted_ms(self) -> int:
        return self._timeline.now_ms

    def observe(self, reading: Reading, sent_ms: float, read_ms: float) -> int | None:
        return None


class Cut(Link):
    """A connection to a server that is away at times."""

    is_away: Callable[[], bool]

    def run(self, *arguments: Any) -> Any:
        if self.is_away():
            raise NoConnection("the server is away")
        return super().run(*arguments)


class Timeline:
    """Heartbeats of nodes that each hold a message, played as fast as the server answers."""

    def __init__(self, server: RedisServer, lease_seconds: float, absence: Absence = NEVER) -> None:
        self.options = Options(prefix=PREFIX, lease_seconds=lease_seconds)
        self.absence, self.seconds, self.keys = absence, 0.0, Keys(PREFIX)
        self.world = World(server)
        self._beats: list[tuple[float, str]] = []
        self.living: dict[str, tuple[Heartbeat, Callable[[], float]]] = {}

    @property
    def now_ms(self) -> int:
        return self.world.base_ms + round(self.seconds * 1_000)

    def start(self, epoch: str, lateness: Callable[[], float] = lambda: 0.0) -> None:
        """Open an epoch, which beats at once; each beat after that comes late by what ``lateness`` says (s)."""
        link = Cut(self.world.connect)
        link.is_away = lambda: self.absence.begins <= self.seconds < self.absence.ends
        heartbeat = Heartbeat(link, self.options, HeldClock(self), lambda _: None)
        self._hold()
        self.world.control.run("open", PREFIX, self.now_ms, epoch, self.options.lease_ms, "")
        self.world.control.command("HSET", self.keys("leased", epoch), "1.0:0:q1", b"message of " + epoch.encode())
        heartbeat.begin(epoch)
        heartbeat.opened(epoch)
        self.living[epoch] = heartbeat, lateness
        heapq.heappush(self._beats, (self.seconds, epoch))

    def die(self, *epochs: str) -> None:
        """Nothing more is heard of these."""
        for epoch in epochs:
            self.living.pop(epoch)[0]._link.close()

    def play(self, until: float) -> None:
        """Let time pass up to ``until``, in seconds since the beginning."""
        while self._beats and self._beats[0][0] <= until:
            at, epoch = heapq.heappop(self._beats)
            if epoch in self.living:
                heartbeat, lateness = self.living[epoch]
                self.seconds = at
                self._hold()
                heapq.heappush(self._beats, (at + heartbeat.beat_or_wait() + lateness(), epoch))
        self.seconds = until
        self._hold()

    def _hold(self) -> None:
        self.world.control.command("EVAL", SET_TIME, 1, self.keys("clock"), self.now_ms)

    def epochs(self) -> set[str]:
        """Return whose leases the server has not ended."""
        return {epoch.decode() for epoch in self.world.control.command("ZRANGE", self.keys("leases"), 0, -1)}

    def close(self) -> None:
        self.die(*list(self.living))
        self.world.close()


@PATIENT
@given(lease=leases, phases=st.lists(shares, min_size=2, max_size=4), at=shares, lasts=lengths)
@example(lease=3.0, phases=[0.0, 0.75, 0.9], at=0.95, lasts=0.7)
def test_no_absence_of_the_server_ends_a_lease_that_lives(
    server: RedisServer, lease: float, phases: list[float], at: float, lasts: float
) -> None:
    """Whatever it falls upon; ``phases`` and ``at`` in beats, ``lasts`` in leases."""
    begins = lease + at * lease / 3
    timeline = Timeline(server, lease, Absence(begins, begins + lasts * lease))
    for number, phase in enumerate(sorted(phases)):
        timeline.play(phase * lease / 3)
        timeline.start(f"node {number}")

    timeline.play(begins + (lasts + 2) * lease)

    assert timeline.epochs() == set(timeline.living)
    assert not any(heartbeat.lost for heartbeat, _ in timeline.living.values())
    timeline.close()


@PATIENT
@given(
    lease=leases,
    phases=st.lists(shares, min_size=2, max_size=4),
    survivors=st.integers(1, 2),
    at=shares,
    seed=st.integers(0, 1_000),
)  # fmt: skip
def test_what_a_dead_node_held_is_back_a_lease_later(
    server: RedisServer, lease: float, phases: list[float], survivors: int, at: float, seed: int
) -> None:
    """However few are left, and with beats that come late."""
    drawn = Random(seed)

    def lateness() -> float:
        return drawn.uniform(0, LATEST_SHARE * lease)

    timeline = Timeline(server, lease)
    for number, phase in enumerate(sorted(phases)):
        timeline.play(phase * lease / 3)
        timeline.start(f"node {number}", lateness)
    died_at = lease * (1 + at)
    timeline.play(died_at)
    timeline.die(*list(timeline.living)[min(survivors, len(phases) - 1) :])

    timeline.play(died_at + lease + PROMISED_SECONDS)

    assert timeline.epochs() == set(timeline.living)
    timeline.close()


@pytest.mark.parametrize("lease", [3.0, 15.0])
@pytest.mark.parametrize("away", [0.0, 0.1, 0.4, 0.6, 0.9, 1.5, 100.0])
def test_what_all_nodes_held_is_back_a_lease_after_one_starts(server: RedisServer, lease: float, away: float) -> None:
    timeline = Timeline(server, lease)
    timeline.start("node 0")
    timeline.play(lease / 6)
    timeline.start("node 1")
    timeline.play(lease * 1.3)
    timeline.die("node 0", "node 1")
    timeline.play(lease * (1.3 + away))
    timeline.start("node 2")

    timeline.play(lease * (2.3 + away) + PROMISED_SECONDS)

    assert timeline.epochs() == {"node 2"}
    timeline.close()
