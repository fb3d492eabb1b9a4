"""Which second runs a history excuses: the judge of row 27 is judged here."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.faults.disturbances import SETTLING_SECONDS, Disturbance, Disturbances
from tests.faults.flow import WEIGHTS, random_flow
from tests.faults.runs import Run


def run(started_at: float, ended_at: float | None, worker: str = "a", pid: int = 1) -> Run:
    return Run(worker, pid, 0, started_at, ended_at)


@pytest.mark.parametrize(
    ("started_at", "ended_at", "explained"),
    [(1.0, None, True), (1.0, 5.5, True), (1.0, 5.0 - SETTLING_SECONDS - 0.1, False), (5.1, None, False)],
    ids=["running when killed", "ended later", "ended and settled long before", "started later"],
)
def test_a_kill_explains_what_was_under_way(started_at, ended_at, explained):
    done = Disturbances(of_nodes=[Disturbance("a", 5.0, 5.0)])
    assert done.explain(run(started_at, ended_at)) is explained


def test_a_kill_of_another_node_or_of_another_child_explains_nothing():
    done = Disturbances(of_nodes=[Disturbance("b", 5.0, 5.0), Disturbance("a", 5.0, 5.0, pid=2)])
    assert not done.explain(run(1.0, None))
    assert done.explain(run(1.0, None, pid=2))


def test_what_befalls_the_server_explains_nothing():
    assert not Disturbances(of_server=[(1.0, 50.0)]).explain(run(0.5, 2.0))


def test_an_end_that_cannot_be_settled_before_the_kill_may_be_lost():
    killed = Disturbance("a", 20.0, 20.0)
    assert not Disturbances([killed]).explain(run(1.0, 2.0))
    assert Disturbances([killed], of_server=[(1.5, 20.5)]).explain(run(1.0, 2.0))
    assert Disturbances([killed], of_server=[(1.5, 10.0), (9.0, 19.0)]).explain(run(1.0, 2.0))
    assert Disturbances([killed], out_of_touch=[Disturbance("a", 1.5, 20.5)]).explain(run(1.0, 2.0))
    assert not Disturbances([killed], out_of_touch=[Disturbance("b", 1.5, 20.5)]).explain(run(1.0, 2.0))
    assert not Disturbances([killed], of_server=[(3.0 + SETTLING_SECONDS, 20.5)]).explain(run(1.0, 2.0))


def test_a_flow_has_all_kinds_and_is_the_same_for_the_same_seed():
    flow = random_flow(random.Random(1), 500, ("", "_async"))
    assert Counter(piece.kind for piece in flow).keys() == WEIGHTS.keys()
    assert flow == random_flow(random.Random(1), 500, ("", "_async"))
