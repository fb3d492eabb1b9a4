"""The engine against its model: every message is in exactly one place, whatever happens in whatever order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from taskapp.engine.dead_letters import REASONS
from taskapp.redis.scripts import ROOMS
from tests.engine.driver import DrivenNode
from tests.engine.model import PRIORITIES, QUEUES, UNIT_SECONDS, Leaves
from tests.engine.mutations import MUTATIONS, Mutation, copy_scripts
from tests.engine.world import PREFIX, TASKS, Fault, World
from tests.support import RedisServer, examples

EXAMPLES = int(os.environ.get("ENGINE_TEST_EXAMPLES") or examples(180))
"""Histories on the server at hand; a quarter of it on each other. `make test` takes 60, a night 20,000."""
STEPS = 60
MOST_NODES = 5
MOST_CHORDS = 3
MANY = 8
"""Messages that wait before somebody empties a queue."""

queues = st.sampled_from(QUEUES)
priorities = st.sampled_from(PRIORITIES)
types = st.sampled_from([frozenset(TASKS), frozenset(TASKS[:1]), frozenset(TASKS[1:]), frozenset[str]()])
tasks = st.lists(st.sampled_from([*TASKS, TASKS[0], ""]), min_size=1, max_size=6)
orders = st.sampled_from([QUEUES, QUEUES, QUEUES[:1], QUEUES[::-1]])
faults = st.sampled_from(["none", "none", "none", "none", "none", "unsent", "unanswered"])
delays = st.sampled_from([0, 0, 0.5, 1.5, 2.5, 5.5])
picks = st.integers(0, 30)


class Left(NamedTuple):
    """What a run leaves, before it is known which chords there are."""

    follow_ups: list[tuple[str, int, str, float]]
    part: tuple[int, int, bytes] | None
    finishes: bool


follow_ups = st.lists(st.tuples(queues, priorities, st.sampled_from([*TASKS, ""]), delays), max_size=2)
parts = st.none() | st.tuples(picks, st.integers(0, 4), st.sampled_from([b"1", b"1", b"0"]))
lefts = st.builds(Left, follow_ups, parts, st.booleans())


class DeliveryMachine(RuleBasedStateMachine):
    """Drives real nodes on a real server in any order and compares everything with the model."""

    server: RedisServer
    rooms = ROOMS

    @initialize(types=types, queue=queues, tasks=tasks)
    def begin(self, types: frozenset[str], queue: str, tasks: list[str]) -> None:
        self.world = World(self.server, self.rooms)
        self.started = 0
        self._start(types)
        self._start(frozenset(TASKS))
        self.world.push(queue, PRIORITIES[0], tasks, 0, "none")

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()

    def _start(self, types: frozenset[str]) -> None:
        self.started += 1
        self.world.nodes.append(DrivenNode(self.world, f"node {self.started}", types))

    def _node(self, pick: int) -> DrivenNode:
        return self.world.nodes[pick % len(self.world.nodes)]

    def _holder(self, pick: int) -> DrivenNode:
        holders = [node for node in self.world.nodes if node.known]
        return holders[pick % len(holders)]

    def some_node(self) -> bool:
        return bool(self.world.nodes)

    def several_nodes(self) -> bool:
        return len(self.world.nodes) > 1

    def something_is_held(self) -> bool:
        return any(node.known for node in self.world.nodes)

    def something_is_delayed(self) -> bool:
        return any(self.world.model.delayed.values())

    def something_is_dead(self) -> bool:
        return any(self.world.model.dead.values())

    # --- submitting -------------------------------------------------------------------------------

    @rule(queue=queues, priority=priorities, tasks=tasks, delay=delays, fault=faults)
    def push(self, queue: str, priority: int, tasks: list[str], delay: float, fault: Fault) -> None:
        self.world.push(queue, priority, tasks, delay, fault)

    @rule(queue=queues, priority=priorities, tasks=tasks)
    def push_as_stock(self, queue: str, priority: int, tasks: list[str]) -> None:
        self.world.push_as_stock(queue, priority, tasks)

    @precondition(something_is_delayed)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        queue, name = self._delayed(pick)
        assert self.world.delayed.cancel(name)
        assert self.world.model.cancel(queue, name)
        assert not self.world.delayed.cancel(name)

    @precondition(something_is_delayed)
    @rule(pick=picks, delay=delays)
    def reschedule(self, pick: int, delay: float) -> None:
        queue, name = self._delayed(pick)
        assert self.world.delayed.reschedule(name, delay * UNIT_SECONDS)
        key = self.world.observer.keys("delayed", queue)
        seen = self.world.observer.units(self.world.control.command("ZSCORE", key, name))
        due = self.world.model.now + delay
        assert abs(seen - due) < 0.1
        self.world.control.command("ZADD", key, self.world.at_ms(due), name)  # without the milliseconds it took
        assert self.world.model.reschedule(queue, name, due)

    def _delayed(self, pick: int) -> tuple[str, str]:
        found = sorted((queue, name) for queue, items in self.world.model.delayed.items() for name in items)
        return found[pick % len(found)]

    @precondition(lambda self: self.world.model.waiting() >= MANY)
    @rule(queue=queues)
    def empty(self, queue: str) -> None:
        emptied = self.world.control.run("empty", PREFIX, 0, queue, "0")
        assert emptied == [self.world.model.empty(queue), b"0"]

    # --- nodes ------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.nodes) < MOST_NODES)
    @rule(types=types)
    def start_a_node(self, types: frozenset[str]) -> None:
        self._start(types)

    @precondition(lambda self: len(self.world.nodes) < MOST_NODES and any(self.world.model.parked.values()))
    @rule(units=st.integers(0, 2), want=st.integers(1, 7))
    def start_a_node_for_what_is_parked(self, units: int, want: int) -> None:
        if units:
            self.let_time_pass(units)
        self._start(frozenset(TASKS))
        self.world.nodes[-1].claim(want, QUEUES, "none")

    @precondition(some_node)
    @rule(pick=picks, want=st.integers(0, 7), wanted=orders, fault=faults)
    def claim(self, pick: int, want: int, wanted: tuple[str, ...], fault: Fault) -> None:
        self._node(pick).claim(want, wanted, fault)

    @precondition(lambda self: self.world.nodes and self.world.model.waiting())
    @rule(pick=picks, want=st.integers(1, 7), woken=st.booleans())
    def claim_what_waits(self, pick: int, want: int, woken: bool) -> None:
        node = self._node(pick)
        node.make_ready()
        if woken and node.epoch in self.world.model.leases:
            node.wake_up()
        node.claim(want, QUEUES, "none")

    @precondition(lambda self: any(not node.broken for node in self.world.nodes))
    @rule(pick=picks, noticed=st.booleans(), scripts_too=st.booleans())
    def break_a_connection(self, pick: int, noticed: bool, scripts_too: bool) -> None:
        whole = [node for node in self.world.nodes if not node.broken]
        whole[pick % len(whole)].cut()
        if noticed:
            whole[pick % len(whole)].notice()
        if scripts_too:  # as if the server had been started again
            self.world.control.command("SCRIPT", "FLUSH")

    @precondition(lambda self: any(node.broken for node in self.world.nodes))
    @rule(pick=picks)
    def come_back(self, pick: int) -> None:
        self._broken(pick).make_ready()

    @precondition(lambda self: any(node.broken for node in self.world.nodes))
    @rule(pick=picks, want=st.integers(0, 4))
    def come_back_in_vain(self, pick: int, want: int) -> None:
        self._broken(pick).come_back_in_vain(want)

    def _broken(self, pick: int) -> DrivenNode:
        broken = [node for node in self.world.nodes if node.broken]
        return broken[pick % len(broken)]

    @precondition(lambda self: self.world.model.fences)
    @rule(back=st.integers(0, 2), want=st.integers(1, 3))
    def a_claim_arrives_late(self, back: int, want: int) -> None:
        for node in self.world.nodes:
            if node.epoch in self.world.model.fences:
                node.claim_late(max(self.world.model.fences[node.epoch] - back, 0), want)

    @rule(pick=picks)
    def beat(self, pick: int) -> None:
        if pick < MOST_NODES and self.world.nodes:
            self._node(pick).beat()
        else:
            self._reap_without_a_lease()

    def _reap_without_a_lease(self) -> None:
        self.world.model.beat("")
        self.world.reaper.beat()

    @precondition(several_nodes)
    @rule(pick=picks)
    def die(self, pick: int) -> None:
        node = self._node(pick)
        node.let_go()
        self.world.nodes.remove(node)

    @precondition(several_nodes)
    @rule(pick=picks)
    def close(self, pick: int) -> None:
        node = self._node(pick)
        node.make_ready()
        node.close()
        self.world.nodes.remove(node)

    # --- the end of a claim ------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.model.chords) < MOST_CHORDS)
    @rule(size=st.integers(1, 4), priority=priorities)
    def begin_a_chord(self, size: int, priority: int) -> None:
        self.world.begin_chord(size, priority)

    def _leaves(self, tag: str, left: Left) -> Leaves:
        leaves, chords = Leaves(), sorted(self.world.model.chords)
        for queue, priority, task, delay in left.follow_ups:
            name, message, _ = self.world.new_message(task, priority)
            leaves.follow_ups.append((queue, name, message, self.world.model.now + delay if delay else 0))
        if chords and left.part is not None:
            chord, slot, outcome = left.part
            leaves.part = chords[chord % len(chords)], str(slot), outcome + tag.encode()
        sent = [name for name in chords if self.world.model.chords[name].is_sent]
        if sent and left.finishes:
            leaves.finished = sent[0]
        return leaves

    @precondition(something_is_held)
    @rule(pick=picks, which=st.lists(st.tuples(picks, lefts), min_size=1, max_size=4), fault=faults)
    def settle(self, pick: int, which: list[tuple[int, Left]], fault: Fault) -> None:
        node = self._holder(pick)
        chosen = {node.known[each % len(node.known)]: left for each, left in which}
        node.settle({tag: self._leaves(tag, left) for tag, left in chosen.items()}, fault)

    @precondition(something_is_held)
    @rule(
        pick=picks, which=st.lists(picks, min_size=1, max_size=5), delay=delays, fault=faults,
        kind=st.sampled_from(["unstarted", "retry", "crashed", "crashed"]),
    )  # fmt: skip
    def give_back(self, pick: int, which: list[int], kind: str, delay: float, fault: Fault) -> None:
        node = self._holder(pick)
        node.give_back(list({node.known[each % len(node.known)]: None for each in which}), kind, delay, fault)

    @precondition(something_is_held)
    @rule(pick=picks, which=picks, fault=faults)
    def park(self, pick: int, which: int, fault: Fault) -> None:
        node = self._holder(pick)
        tag = node.known[which % len(node.known)]
        held = self.world.model.leased.get(node.epoch, {}).get(tag)
        node.park(tag, held.task if held and held.task else "elsewhere", fault)

    @precondition(something_is_held)
    @rule(pick=picks, which=picks, reason=st.sampled_from(REASONS[:2]), left=lefts, fault=faults)
    def bury(self, pick: int, which: int, reason: str, left: Left, fault: Fault) -> None:
        node = self._holder(pick)
        tag = node.known[which % len(node.known)]
        node.bury(tag, reason, self._leaves(tag, left), fault)

    # --- dead letters -----------------------------------------------------------------------------

    def _dead(self, pick: int) -> tuple[str, int]:
        found = sorted((queue, number) for queue, letters in self.world.model.dead.items() for number in letters)
        return found[pick % len(found)]

    @precondition(something_is_dead)
    @rule(pick=picks, to_queue=queues)
    def replay(self, pick: int, to_queue: str) -> None:
        queue, number = self._dead(pick)
        assert self.world.dead.replay(queue, number, to_queue)
        assert self.world.model.replay(queue, number, to_queue)
        assert not self.world.dead.replay(queue, number, to_queue)

    @precondition(lambda self: self.world.model.told)
    @rule(pick=picks, left=lefts)
    def fail_a_buried_task(self, pick: int, left: Left) -> None:
        """One of the nodes that were asked does so, perhaps not the first one, perhaps too late."""
        *_, queue, number = self.world.model.told[pick % len(self.world.model.told)]
        self.world.settle_letter(queue, number, self._leaves(f"{queue}/{number}", left))

    @precondition(something_is_dead)
    @rule(pick=st.lists(picks, min_size=1, max_size=3))
    def purge(self, pick: list[int]) -> None:
        queue, _ = self._dead(pick[0])
        numbers = [number for other, number in map(self._dead, pick) if other == queue]
        assert self.world.dead.purge(queue, numbers) == self.world.model.purge(queue, numbers)

    # --- the server and time ----------------------------------------------------------------------

    @rule(units=st.sampled_from([1, 1, 2, 3, 7]))
    def let_time_pass(self, units: int) -> None:
        self.world.model.now += units
        self.world.hold_time()

    @rule(units=st.integers(1, 8))
    def live_on(self, units: int) -> None:
        """Time passes while every node beats, as it does every third of a lease."""
        for _ in range(units):
            self._live_on_but_for(None)

    @precondition(something_is_held)
    @rule(pick=picks, dead=st.booleans())
    def fall_silent(self, pick: int, dead: bool) -> None:
        """A node that holds something does not beat for a whole lease, dead or only slow, while the others do."""
        silent = self._holder(pick)
        if dead:
            silent.let_go()
            self.world.nodes.remove(silent)
        for _ in range(4):
            self._live_on_but_for(silent)

    def _live_on_but_for(self, silent: DrivenNode | None) -> None:
        self.let_time_pass(1)
        self._reap_without_a_lease()
        for node in self.world.nodes:
            if node is not silent:
                node.beat()

    # --- what holds after every step --------------------------------------------------------------

    @invariant()
    def every_message_is_in_exactly_one_place(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    @invariant()
    def somebody_is_woken_for_what_is_ready(self) -> None:
        if hasattr(self, "world"):
            for queue in {queue for (queue, _), waiting in self.world.model.ready.items() if waiting}:
                assert self.world.observer.tokens[queue], f"messages are ready in {queue!r} and nobody will be woken"

    @invariant()
    def results_stand_only_for_claims_that_held(self) -> None:
        if hasattr(self, "world") and self.world.results:
            assert self.world.control.command("MGET", *self.world.results) == list(self.world.results.values())


def run_machine(server: RedisServer, examples: int, rooms: Path = ROOMS, *, shrink: bool = True) -> None:
    """Run that many histories; fail with the shortest that breaks the engine."""
    machine = type("Machine", (DeliveryMachine,), {"server": server, "rooms": rooms})
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    profile = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        phases=phases,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=profile)


@pytest.mark.timeout(600 + EXAMPLES)  # making a failure short takes up to five minutes
def test_every_message_is_in_exactly_one_place_whatever_happens(each_server: RedisServer, request) -> None:
    at_hand = request.node.callspec.params["each_server"] == "at hand"
    run_machine(each_server, EXAMPLES if at_hand else max(1, EXAMPLES // 4))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_the_mutations_break_is_there(mutation: Mutation, tmp_path: Path) -> None:
    copy_scripts(tmp_path / "mutant", mutation)
