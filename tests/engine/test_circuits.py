"""Circuit breakers of task types: decided in Redis, for all nodes."""

from __future__ import annotations

import pytest

from taskapp.engine.circuits import OF_CIRCUITS, Circuit, Circuits, gates_of
from taskapp.engine.claims import Claimed
from taskapp.engine.limit_numbers import LimitsAdmin
from taskapp.engine.limits import Concurrency, Limits, Rate
from taskapp.engine.settlement import CircuitRun, Settlement
from tests.engine.bench import TASK, Bench, TestNode, names

GATE, SLOT = gates_of(TASK)
BROKEN = Limits(rates=(GATE,), slots=(SLOT,))


@pytest.fixture
def circuits(bench: Bench) -> Circuits:
    return Circuits(bench.link, bench.options.prefix)


def end(node: TestNode, claimed: list[Claimed], *kinds: str, within: int = 0, failures: int = 3) -> None:
    """Settle runs that end with errors of these classes; the empty one is a success."""
    for one, kind in zip(claimed, kinds, strict=True):
        settlement = Settlement()
        settlement.circuit = CircuitRun(TASK, kind, failures, within, 30_000)
        node.settle(one.tag, settlement)
        node.done()


def opened(bench: Bench, node: TestNode, further: int = 4) -> None:
    """Open the circuit, while this number of further messages waits."""
    bench.submit(*(f"f{number}" for number in range(3)), limits=BROKEN)
    bench.submit(*(f"w{number}" for number in range(further)), limits=BROKEN)
    end(node, node.take(3), "E", "E", "E")


def test_failures_of_one_kind_in_a_row_open_it_for_all_nodes(bench: Bench, circuits: Circuits) -> None:
    node, other = bench.node(), bench.node()

    opened(bench, node)
    bench.push("plain")

    claim = other.ask(9)
    assert claim is not None
    assert (names(claim.messages), claim.next_due_seconds) == (["plain"], pytest.approx(30, abs=1))
    (circuit,) = circuits.read()
    assert circuit == Circuit(TASK, pytest.approx(circuit.since), pytest.approx(30, abs=1), "E", 1)
    assert circuit.state == "open"
    (lane,) = LimitsAdmin(bench.link, bench.options.prefix).blocked("q1")
    assert (lane.gate.limit, lane.number) == (OF_CIRCUITS + TASK, 4)


@pytest.mark.parametrize("kinds", [("E", "E", ""), ("E", "E", "F", "F", "E", "E"), ("E", "", "E", "", "E", "E")])
def test_successes_and_other_kinds_begin_a_new_row(bench: Bench, circuits: Circuits, kinds: tuple[str, ...]) -> None:
    node = bench.node()
    bench.submit(*map(str, range(len(kinds))), limits=BROKEN)

    end(node, node.take(9), *kinds)

    assert circuits.read() == []


def test_failures_in_a_time_count_whatever_lies_between(bench: Bench, circuits: Circuits) -> None:
    node = bench.node()
    bench.submit(*map(str, range(6)), limits=BROKEN)

    end(node, node.take(4), "E", "", "F", "E", within=60_000)
    assert circuits.read() == []
    bench.let_time_pass(61)
    end(node, node.take(1), "E", within=60_000)
    assert circuits.read() == []
    bench.submit("x", "y", limits=BROKEN)
    end(node, node.take(2), "E", "E", within=60_000)

    assert [circuit.kind for circuit in circuits.read()] == ["E"]


def test_half_open_one_probe_runs_at_a_time_and_success_closes_it(bench: Bench, circuits: Circuits) -> None:
    node, other = bench.node(), bench.node()
    opened(bench, node)
    bench.let_time_pass(31)

    (probe,) = other.take(9)
    assert node.take(9) == []
    assert [circuit.state for circuit in circuits.read()] == ["half-open"]

    end(other, [probe], "")
    assert circuits.read() == []
    assert len(node.take(9)) == 3


def test_half_open_a_failure_opens_it_again(bench: Bench, circuits: Circuits) -> None:
    node = bench.node()
    opened(bench, node)
    bench.let_time_pass(31)

    end(node, node.take(9), "Other")

    assert node.take(9) == []
    (circuit,) = circuits.read()
    assert (circuit.state, circuit.kind, circuit.times) == ("open", "Other", 2)
    bench.let_time_pass(31)
    end(node, node.take(9), "")
    assert len(node.take(9)) == 2


def test_a_probe_whose_node_dies_is_followed_by_another(bench: Bench) -> None:
    opened(bench, bench.node())
    bench.let_time_pass(31)
    node, other = bench.node(), bench.node()
    (probe,) = node.take(9)

    bench.end_leases(node.epoch)
    bench.reap()

    assert [one.envelope.id for one in other.take(9)] == [probe.envelope.id]


def test_a_probe_that_ends_without_saying_anything_is_followed_by_another(bench: Bench) -> None:
    node = bench.node()
    opened(bench, node)
    bench.let_time_pass(31)
    (probe,) = node.take(9)

    node.settle(probe.tag)
    node.done()

    assert len(node.take(9)) == 1


def test_runs_from_before_it_opened_change_nothing_and_count_as_probes(bench: Bench, circuits: Circuits) -> None:
    node = bench.node()
    bench.submit(*map(str, range(9)), limits=BROKEN)
    running = node.take(5)
    end(node, running[:3], "E", "E", "E")
    end(node, [running[3]], "")
    assert [circuit.state for circuit in circuits.read()] == ["open"]
    bench.let_time_pass(31)

    assert node.take(9) == []
    end(node, [running[4]], "")
    assert len(node.take(9)) == 4


def test_many_lanes_wait_at_one_circuit_and_all_go_on(bench: Bench, circuits: Circuits) -> None:
    node = bench.node()
    opened(bench, node, 0)
    for tenant in range(120):
        gates = (GATE, Rate("mail", str(tenant), 1, 1_000, 9))
        slots = (SLOT, Concurrency("mail", str(tenant), 1, "drop"))
        bench.submit(f"t{tenant}", limits=Limits(str(tenant), gates, slots))
    assert node.take(9) == []
    bench.let_time_pass(31)
    end(node, node.take(9), "E")
    bench.let_time_pass(31)
    end(node, node.take(9), "")

    taken: list[str] = []
    for _ in range(40):
        found = node.take(50)
        taken += names(found)
        for one in found:
            node.settle(one.tag)
        node.done()
    assert len(taken) == 118
    assert circuits.read() == []


def test_somebody_closes_it(bench: Bench, circuits: Circuits) -> None:
    node = bench.node()
    opened(bench, node)
    assert node.take(9) == []
    bench.client.delete(bench.keys("wake", "q1"))

    assert circuits.close(TASK)

    assert bench.client.llen(bench.keys("wake", "q1")) == 1
    assert len(node.take(9)) == 4
    assert (circuits.read(), circuits.close(TASK)) == ([], False)


def test_somebody_closes_it_while_a_probe_runs(bench: Bench, circuits: Circuits) -> None:
    node = bench.node()
    opened(bench, node)
    bench.let_time_pass(31)
    assert len(node.take(9)) == 1
    assert node.take(9) == []  # the others wait for the probe

    assert circuits.close(TASK)

    assert len(node.take(9)) == 3


def test_it_survives_a_restart_of_all_and_leaves_nothing_when_closed(bench: Bench, circuits: Circuits) -> None:
    node = bench.node()
    opened(bench, node, 1)
    assert bench.client.ttl(bench.keys("circuit", TASK)) == -1
    bench.let_time_pass(90_000)

    assert [circuit.state for circuit in circuits.read()] == ["half-open"]
    end(node, node.take(9), "")
    assert [key for key in bench.client.keys("*") if b"circuit" in key] == []


def test_types_that_have_none_are_left_alone(bench: Bench) -> None:
    node = bench.node()
    opened(bench, node)
    bench.submit("other", limits=Limits(rates=gates_of("shop.other")[:1], slots=gates_of("shop.other")[1:]))

    assert names(node.take(9)) == ["other"]
