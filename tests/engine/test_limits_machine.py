"""Limits against a model: in whatever order things happen, none is exceeded, and nothing is lost or gets stuck."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine_as_test

from taskapp.engine.clock import Clock, Reading
from taskapp.engine.limit_numbers import LimitsAdmin
from taskapp.engine.options import Options
from taskapp.errors import KeyTaken
from taskapp.redis.scripts import ROOMS
from tests.engine.bench import Bench, TestNode, leaving
from tests.engine.limits_model import OFTEN, PRIORITIES, QUEUES, UNIT_MS, Model, Task
from tests.support import RedisServer, examples

EXAMPLES = int(os.environ.get("ENGINE_TEST_EXAMPLES") or examples(120))
LEASE_SECONDS = 10_000_000.0
SET_TIME = """
local time = redis.call('TIME')
local offset = ARGV[1] - time[1] * 1000 - math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'offset', math.max(offset, tonumber(redis.call('HGET', KEYS[1], 'offset') or offset)))
"""
"""Set the engine's time forward, never back by the milliseconds that the last step took."""
MOST_NODES = 3

picks = st.integers(0, 30)
queues = st.sampled_from(QUEUES)
orders = st.sampled_from([QUEUES, QUEUES, QUEUES[:1], QUEUES[::-1]])
delays = st.sampled_from([0, 0, 0, 3, 8])


class Held(Clock):
    """A clock that predicts nothing: the machine holds the server's."""

    def predicted_ms(self) -> int:
        return 0

    def observe(self, reading: Reading, sent_ms: float, read_ms: float) -> int | None:
        return None


class LimitsMachine(RuleBasedStateMachine):
    """Drives real nodes on a real server."""

    server: RedisServer
    rooms = ROOMS

    @initialize()
    def begin(self) -> None:
        self.bench = Bench(self.server, Options(lease_seconds=LEASE_SECONDS, crash_limit=9))
        for link in (self.bench.link, self.bench.producer.link):
            link._rooms = self.rooms
        self.bench.client.flushall()
        self.bench.producer.clock = Held()
        self.base_ms = int(self.bench.client.time()[0]) * 1_000
        self.model, self.made, self.letters = Model(), 0, 0
        self.admin = LimitsAdmin(self.bench.link, "")
        self.nodes: list[TestNode] = []
        self.hold()
        self.start_a_node()

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            try:
                self.nothing_is_lost()
            finally:
                self.bench.close()

    def hold(self) -> None:
        """Set the engine's time to the model's."""
        self.bench.client.eval(SET_TIME, 1, self.bench.keys("clock"), self.at_ms(self.model.now))

    def at_ms(self, units: float) -> int:
        return self.base_ms + round(units * UNIT_MS)

    def start_a_node(self) -> None:
        node = self.bench.node()
        node.clock = node.heartbeat._clock = Held()
        node.pipe._rooms = node.heartbeat._link._rooms = self.rooms
        self.nodes.append(node)

    def new_task(self, variant: str, queue: str, priority: int, delay: float) -> Task:
        self.made += 1
        due = self.model.now + delay + 0.5 if delay else 0.0
        return Task(f"id-{self.made}", b"body %d" % self.made, variant, queue, priority, due)

    def message(self, task: Task) -> Any:
        due_ms = self.at_ms(task.due) if task.due else 0
        made = self.bench.limited(task.id, task.limits, task.queue, task.priority, due_ms)
        return made._replace(blob=made.blob.removesuffix(task.id.encode()) + task.body)

    # --- rules ----------------------------------------------------------------------------------------

    @rule(
        variants=st.lists(st.sampled_from(OFTEN), min_size=1, max_size=5),
        queue=queues, priority=st.sampled_from(PRIORITIES), delay=delays,
    )  # fmt: skip
    def push(self, variants: list[str], queue: str, priority: int, delay: float) -> None:
        self.hold()
        tasks = [self.new_task(variant, queue, priority, delay) for variant in variants]
        answers = {
            each.id: (each.outcome, each.other) for each in self.bench.producer.push(list(map(self.message, tasks)))
        }
        for task in tasks:
            assert answers.get(task.id) == self.model.push(task), task

    @rule(pick=picks, want=st.integers(1, 6), order=orders)
    def claim(self, pick: int, want: int, order: tuple[str, ...]) -> None:
        self.hold()
        node = self.nodes[pick % len(self.nodes)]
        for queue in order:
            self.bench.client.rpop(self.bench.keys("wake", queue))
        taken = node.take(want, order)
        self.model.promote(order)
        for each in taken:
            task = next((one for one in self.model.waiting() if one.id == each.envelope.id), None)
            assert task is not None, f"{each.envelope.id} was claimed: {self.model}"
            assert (each.queue, each.priority, each.envelope.body) == (task.queue, task.priority, task.body)
            self.model.start(task, (node.epoch, each.tag))
        if len(taken) < want:
            stuck = [
                task
                for task in self.ready_heads()
                if not (any(each.queue not in order for each in self.rivals(task)) or self.is_next(task))
            ]
            assert not stuck, f"{stuck} could start and was not claimed: {self.model}"

    def is_woken(self, queue: str) -> bool:
        return bool(self.bench.client.llen(self.bench.keys("wake", queue)))

    def is_next(self, task: Task) -> bool:
        """Return whether the next claim lets ``task`` in, if it does not take it.

        A gate lets in one at a time. The one it let in last may be in a queue that the claim had passed by then, and
        may wait at another of its gates; when it is looked at, the next one is let in.
        """
        return any(self.is_let_in(each) for each in self.heads() if each is task or each.gates & task.gates)

    def is_let_in(self, task: Task) -> bool:
        """Return whether ``task`` waits at no gate and somebody is woken for it."""
        client, keys, queue = self.bench.client, self.bench.keys, task.queue
        lanes = client.keys(f"taskapp:{{{queue}}}:lane:{task.priority}:*")
        [own] = [lane.decode().rsplit(":", 1)[1] for lane in lanes if client.zscore(lane, task.id) is not None]
        places = [place.decode() for place in client.hkeys(keys("blocked", queue))]
        is_blocked = any(place.startswith(f"{task.priority}:{own}:") for place in places)
        return self.is_woken(queue) and not is_blocked

    def heads(self) -> list[Task]:
        return [lane[0] for lane in self.model.lanes.values() if lane]

    def ready_heads(self) -> list[Task]:
        return [task for task in self.heads() if self.model.may_start(task)]

    def rivals(self, task: Task) -> list[Task]:
        """Return ``task`` and others that could start instead: a gate lets in one at a time."""
        return [each for each in self.ready_heads() if each is task or each.gates & task.gates]

    def something_runs(self) -> bool:
        return bool(self.model.running)

    def _running(self, pick: int) -> tuple[TestNode, str, tuple[str, str]]:
        holder = list(self.model.running)[pick % len(self.model.running)]
        [node] = [each for each in self.nodes if each.epoch == holder[0]]
        return node, holder[1], holder

    @precondition(something_runs)
    @rule(pick=picks)
    def settle(self, pick: int) -> None:
        self.hold()
        node, tag, holder = self._running(pick)
        node.settle(tag)
        node.done()
        self.model.leave(holder)

    @precondition(something_runs)
    @rule(pick=picks, delay=delays)
    def retry_with_a_message(self, pick: int, delay: float) -> None:
        self.hold()
        node, tag, holder = self._running(pick)
        task = self.model.running[holder]
        task.due = self.model.now + delay + 0.5 if delay else 0.0
        node.settle(tag, leaving(self.message(task)))
        node.done()
        self.model.put(task)
        self.model.leave(holder)

    @precondition(something_runs)
    @rule(pick=picks, delay=delays, kind=st.sampled_from(["unstarted", "retry"]))
    def give_back(self, pick: int, delay: float, kind: str) -> None:
        self.hold()
        node, tag, holder = self._running(pick)
        task = self.model.running[holder]
        task.due = self.model.now + delay + 0.5 if delay else 0.0
        node.clock.now_ms = lambda: self.at_ms(self.model.now + 0.5)  # type: ignore[method-assign]
        node.give_back([tag], kind, delay * UNIT_MS / 1_000)
        node.done()
        self.model.put(task, in_front=True)
        self.model.leave(holder)

    @precondition(something_runs)
    @rule(pick=picks)
    def bury(self, pick: int) -> None:
        self.hold()
        node, tag, holder = self._running(pick)
        task = self.model.leave(holder)
        node.bury(tag, "failed", "why")
        node.done()
        self.letters = max(int(self.bench.client.get(self.bench.keys("dead_number", task.queue)) or 0), 0)
        self.model.dead[self.letters * 2 + QUEUES.index(task.queue)] = task

    @precondition(lambda self: self.model.dead)
    @rule(pick=picks)
    def replay(self, pick: int) -> None:
        self.hold()
        name = sorted(self.model.dead)[pick % len(self.model.dead)]
        task = self.model.dead[name]
        task.due = 0.0
        outcome = self.model.push(task)
        if outcome is not None and outcome[0] != "replaced":
            try:
                self.bench.dead.replay(QUEUES[name % 2], name // 2)
            except KeyTaken:
                return
            raise AssertionError(f"{task} was queued although {outcome[1]} has its key")
        assert self.bench.dead.replay(QUEUES[name % 2], name // 2)
        del self.model.dead[name]

    @precondition(lambda self: self.model.all_delayed() or self.model.waiting())
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        self.hold()
        tasks = self.model.all_delayed() + self.model.waiting()
        task = tasks[pick % len(tasks)]
        assert self.bench.delayed.cancel(task.id)
        self.model.forget(task)

    @precondition(lambda self: len(self.model.waiting()) > 6)
    @rule(queue=queues)
    def empty(self, queue: str) -> None:
        self.hold()
        gone = [task for task in self.model.all_delayed() + self.model.waiting() if task.queue == queue]
        answer = self.bench.link.run("empty", "", 0, queue, "0")
        assert answer == [len(gone), b"0"]
        for task in gone:
            self.model.forget(task)

    @precondition(lambda self: len(self.nodes) < MOST_NODES)
    @rule()
    def start_another_node(self) -> None:
        self.hold()
        self.start_a_node()

    @precondition(lambda self: len(self.nodes) > 1)
    @rule(pick=picks, how=st.sampled_from(["dies", "closes"]))
    def end_a_node(self, pick: int, how: str) -> None:
        self.hold()
        busy = {epoch for epoch, _ in self.model.running}
        some = [node for node in self.nodes if node.epoch in busy] or self.nodes
        node = some[pick % len(some)]
        self.nodes.remove(node)
        epoch = node.epoch
        if how == "closes":
            node.close(QUEUES)
        else:
            node.die()
            self.bench.end_leases(epoch)
            self.bench.producer.clock = Held()
            self.nodes[0].heartbeat.beat()
        held = sorted((holder for holder in self.model.running if holder[0] == epoch), key=_age, reverse=True)
        for holder in held:
            task = self.model.running[holder]
            task.due = 0.0
            self.model.put(task, in_front=True)
            self.model.leave(holder)

    @rule(units=st.sampled_from([1, 2, 3, 7, 30]))
    def let_time_pass(self, units: int) -> None:
        self.model.now += units
        self.hold()

    @rule(most=st.integers(1, 3))
    def set_the_limit(self, most: int) -> None:
        self.hold()
        self.admin.set_limit("cap", {"most": most})
        self.model.cap = most

    @rule(key=st.sampled_from([("slow", ""), ("slow", "y"), ("dear", "")]), units=st.sampled_from([0, 4, 9]))
    def pause(self, key: tuple[str, str], units: int) -> None:
        self.hold()
        self.admin.pause(*key, (units + 0.5) * UNIT_MS / 1_000 if units else 0)
        self.model.paused[key] = self.model.now + units + 0.5 if units else 0.0

    # --- what holds after every step ------------------------------------------------------------------

    @invariant()
    def slots_are_the_leases(self) -> None:
        if not hasattr(self, "bench"):
            return
        held: dict[bytes, set[str]] = {}
        for (epoch, tag), task in self.model.running.items():
            for slot in task.slots:
                key = self.bench.keys("slots", slot.name, slot.key).encode()
                held.setdefault(key, set()).add(f"{epoch}|{tag}")
        found = {
            key: {entry.decode() for entry in self.bench.client.smembers(key)}
            for key in self.bench.client.keys("taskapp:limits:slots:*")
        }
        assert found == held

    @invariant()
    def every_message_waits_where_it_shall_and_is_counted(self) -> None:
        if not hasattr(self, "bench"):
            return
        client, keys = self.bench.client, self.bench.keys
        for queue in QUEUES:
            tasks = [task for task in self.model.waiting() + self.model.all_delayed() if task.queue == queue]
            found = client.hgetall(keys("limited_messages", queue))
            assert {name.decode() for name in found} == {task.id for task in tasks}
            assert client.zcard(keys("lane_delayed", queue)) == len(self.model.delayed[queue]) or self._some_are_due()
            numbers = client.hgetall(keys("limited", queue))
            blocked = client.hgetall(keys("blocked", queue))
            for priority in range(10):
                lanes = client.keys(f"taskapp:{{{queue}}}:lane:{priority}:*")
                at_gates = [place.decode().split(":")[1] for place in blocked if int(place[:1]) == priority]
                sizes = {lane.decode().rsplit(":", 1)[1]: client.zcard(lane) for lane in lanes}
                assert int(numbers.get(b"all:%d" % priority, 0)) == sum(sizes.values())
                counted = [int(n) for name, n in numbers.items() if name.startswith(b"blocked:%d:" % priority)]
                assert sum(counted) == sum(sizes.get(lane, 0) for lane in at_gates)
                assert all(number > 0 for number in counted), "a limit that blocks nothing is counted"
                assert all(sizes.get(lane) for lane in at_gates), "an empty lane waits at a gate"

    def _some_are_due(self) -> bool:
        return any(task.due <= self.model.now for task in self.model.all_delayed())

    @invariant()
    def somebody_is_woken_for_what_a_slot_or_key_lets_run(self) -> None:
        if hasattr(self, "bench"):
            for task in self.ready_heads():
                rivals = self.rivals(task)
                if not any(each.limits.rates for each in rivals):
                    assert any(self.is_woken(each.queue) for each in rivals), (
                        f"{task} could start and nobody will be woken"
                    )

    def nothing_is_lost(self) -> None:
        """Run everything that is left, and find nothing of it afterwards."""
        for _ in range(400):
            if not (self.model.waiting() or self.model.all_delayed() or self.model.running):
                break
            self.claim(0, 6, QUEUES)
            while self.model.running:
                self.settle(0)
            self.let_time_pass(3)
        assert not self.model.waiting(), "some never run"
        self.nodes[0].take(1, QUEUES)
        left = [key for key in self.bench.client.keys("*") if any(part in key for part in LEFT)]
        assert not left, left


LEFT = (b"lane", b":limited", b"fair", b"blocked", b"runnable", b"opened", b"unique", b"slots", b"limits:gate:")


def _age(holder: tuple[str, str]) -> list[int]:
    return [int(number) for number in holder[1].split(":", 1)[0].split(".")]


def run_machine(server: RedisServer, count: int, rooms: Path = ROOMS, *, shrink: bool = True) -> None:
    """Run that many histories; fail with the shortest that breaks a limit."""
    machine = type("Machine", (LimitsMachine,), {"server": server, "rooms": rooms})
    profile = settings(
        max_examples=count, stateful_step_count=40, deadline=None, database=None, report_multiple_bugs=False,
        print_blob=True, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
    )  # fmt: skip
    run_machine_as_test(machine, settings=profile)


@pytest.mark.timeout(900)
def test_no_limit_is_exceeded_and_nothing_is_lost_whatever_happens(each_server: RedisServer, request) -> None:
    at_hand = request.node.callspec.params["each_server"] == "at hand"
    run_machine(each_server, EXAMPLES if at_hand else max(1, EXAMPLES // 4))
