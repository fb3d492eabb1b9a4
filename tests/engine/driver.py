"""A real node, driven step by step together with its model, over a connection that can be made to break."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import hiredis

from taskapp.engine.claims import Claim
from taskapp.engine.node import Node
from taskapp.engine.options import NodeProfile
from taskapp.engine.settlement import Result, Settlement
from tests.engine.model import GUARD, QUEUES, UNIT_SECONDS, Effect, Engine, Leaves, Message
from tests.engine.world import OPTIONS, PREFIX, Fault, Steered, World


class DrivenNode:
    """A real node; each call is answered, or its connection breaks, before the next one."""

    def __init__(self, world: World, name: str, types: frozenset[str]) -> None:
        self.world, self.model, self.name, self.types = world, world.model, name, types
        self.node = Node(
            world.connect,
            OPTIONS,
            NodeProfile(name=name, types=lambda: dict.fromkeys(types, ""), on_buried=world.told.extend),
        )
        for link in (self.node.pipe, self.node.heartbeat._link):
            link._rooms = world.rooms
        self.node.clock = self.node.heartbeat._clock = Steered(world)
        self.node.heartbeat.start = lambda: None  # beats come when the machine says so
        self.node.ends.batching_thread, self.node._has_straggler = threading.get_ident(), True  # and so do settles
        self.known: list[str] = []
        """Tags of claims that were answered and of which nothing has become yet."""
        self.pending: list[Effect] = []
        self.missing: set[str] = set()
        self.broken, self.claims = False, 0
        self.make_ready()

    @property
    def epoch(self) -> str:
        return self.node.epoch

    def make_ready(self) -> None:
        """Connect, recover and open an epoch, as far as needed; what a consumer does before every claim."""
        before = self.epoch
        if self.broken:
            self.notice()
        self._settle_down()
        if self.broken:
            self.broken = False
            self._recover_model(before)
        if self.epoch != before:
            assert before not in self.model.leases, "a lease was given up that was alive"
            self.model.open(self.epoch, self.types)
            self.known = []

    def _settle_down(self) -> None:
        for _ in range(5):
            assert self.node.ready(), "the node does not connect"
            self.flush()
            if self.node.pipe.is_open and not self.node.heartbeat.lost:
                return
        raise AssertionError("the node finds no epoch that lives")

    def _recover_model(self, epoch: str) -> None:
        pending, self.pending = self.pending, []
        if self.model.recover(epoch, self.claims) is None:
            return
        for effect in pending:
            effect(self.model)
        # In the order in which they were claimed: hence the first of them is again the first.
        unknown = [tag for tag in self.model.leased[epoch] if tag not in self.known]
        self.model.requeue(epoch, unknown, "unstarted", 0, self.name)

    def flush(self) -> None:
        deadline = monotonic() + 10
        self.node.flush(deadline)
        assert monotonic() < deadline, "an answer did not come"

    # --- breaking ---------------------------------------------------------------------------------

    def cut(self) -> None:
        """Break the connection at the server's end; the node has not noticed yet."""
        found: list[Any] = []
        self.node.pipe.ask("CLIENT", "ID", on_answer=found.append)
        self.flush()
        self.world.control.command("CLIENT", "KILL", "ID", found[0])
        self.broken = True

    def notice(self) -> None:
        while self.node.pipe.is_open:
            select.select([self.node.pipe.socket], [], [], 10)
            self.node.read()

    def _lose_answers(self) -> None:
        """Wait until the server has carried out what was sent, then break the connection."""
        connection, reader, got = self.node.pipe.socket, hiredis.Reader(), 0
        while got < len(self.node.pipe.unanswered):
            select.select([connection], [], [], 10)
            reader.feed(connection.recv(1 << 16))
            while reader.gets() is not False:
                got += 1
        connection.shutdown(socket.SHUT_RDWR)
        self.broken = True
        self.notice()

    def let_go(self) -> None:
        """Die: the server sees connections close, and nothing else."""
        self.node.pipe.close()
        self.node.heartbeat._link.close()

    def come_back_in_vain(self, want: int) -> None:
        """Connect, recover and claim, and lose the connection again before the first answer."""
        self.notice()
        if self.node.heartbeat.lost:
            self.make_ready()
            return
        self.world.load_scripts()
        assert self.node.ready()
        self.claims += 1
        self._claim(QUEUES, want, lambda claim: None)
        self._lose_answers()
        self.model.recover(self.epoch, self.claims - 1)
        from_below = self.claims % GUARD == 0
        self.model.adopt(want, QUEUES, from_below=from_below)
        self.model.claim(self.epoch, self.claims, want, QUEUES, self.missing, from_below=from_below)

    def _claim(self, queues: Sequence[str], want: int, on_claim: Callable[[Claim | None], None]) -> None:
        """Claim, as a node does that has not looked for messages of stock clients for a while."""
        self.node.adopt_at = 0.0
        self.node.claim(queues, want, on_claim)

    def claim_late(self, number: int, want: int) -> None:
        """Let a claim that was on its way when the connection broke arrive after all."""
        arguments = (self.world.now_ms, self.epoch, number, want, 0, "", len(QUEUES), *QUEUES)
        answer = self.world.control.run("claim", PREFIX, *arguments)
        assert answer[6:] == [], "a claim was carried out that was fenced off"

    # --- calls ------------------------------------------------------------------------------------

    def do(self, act: Callable[[], Any], effect: Effect, fault: Fault) -> None:
        """Call the node and let the model follow; after a broken connection it follows at recovery."""
        if fault == "unanswered" and not self.broken:
            self.world.load_scripts()
            act()
            self._lose_answers()
            told = len(self.model.told)
            effect(self.model)
            del self.model.told[told:]  # nobody heard of it
            self.pending.append(effect)
        elif fault == "unsent" or self.broken:
            if not self.broken:
                self.cut()
            act()
            self.notice()
            self.pending.append(effect)
        else:
            act()
            self.flush()
            effect(self.model)

    def wake_up(self) -> None:
        """Take a token, as the blocking pop of a waiting consumer does."""
        keys = (self.world.observer.keys("wake", queue) for queue in QUEUES)
        any(self.world.control.command("RPOP", key) for key in keys)

    def claim(self, want: int, queues: Sequence[str], fault: Fault) -> None:
        if self.broken and self.node.pipe.is_open:
            fault = "unsent"  # it has not noticed yet, and its call fails
        else:
            self.make_ready()
        self.claims += 1
        answers: list[Claim | None] = []
        claimed: list[Any] = []
        model, epoch, number, missing = self.model, self.epoch, self.claims, set(self.missing)
        from_below = number % GUARD == 0

        def effect(engine: Engine) -> None:
            if not claimed:
                engine.adopt(want, queues, from_below=from_below)
                claimed.append(engine.claim(epoch, number, want, queues, missing, from_below=from_below))

        self.do(lambda: self._claim(queues, want, answers.append), effect, fault)
        if fault != "none":
            # What is on its way is fenced off; what was answered to nobody is given back.
            self.pending = []
            assert answers in ([], [None])
        elif claimed[0] is None:
            assert answers == [None]
        else:
            self._compare(answers[0], claimed[0], model.next_due(queues))

    def _compare(self, answer: Claim | None, expected: list[tuple[str, Message]], next_due: float | None) -> None:
        assert answer is not None
        seen = [
            (each.tag, each.priority, each.envelope.id, each.envelope.deliveries, each.envelope.crashes)
            for each in answer.messages
        ]
        wanted = [(tag, each.priority, each.id, each.deliveries, each.crashes) for tag, each in expected]
        assert seen == wanted, f"claimed was:\n  {seen}\nbut shall be:\n  {wanted}"
        if next_due is None:
            assert answer.next_due_seconds is None
        else:
            assert abs(answer.next_due_seconds - (next_due - self.model.now) * UNIT_SECONDS) < 10
        self.known += [tag for tag, _ in expected]

    def _leaving(self, tag: str, leaves: Leaves) -> tuple[Settlement, Callable[[bool], None]]:
        """Return a settlement with a result and ``leaves``, and what notes whether the result must be there."""
        key = f"result {self.epoch} {tag}"
        settlement, results = self.world.settlement_of(leaves), self.world.results
        settlement.results.append(Result(key, tag.encode(), 60))
        return settlement, lambda held: results.update({key: tag.encode() if held else results.get(key)})

    def settle(self, tags: dict[str, Leaves], fault: Fault) -> None:
        self.known = [tag for tag in self.known if tag not in tags]
        epoch, left = self.epoch, {tag: self._leaving(tag, leaves) for tag, leaves in tags.items()}

        def act() -> None:
            for tag, (settlement, _) in left.items():
                self.node.settle(tag, settlement)
            self.node.ends.flush()

        def effect(engine: Engine) -> None:
            for tag, (_, note) in left.items():
                note(engine.settle(epoch, tag, tags[tag]))

        self.do(act, effect, fault)

    def give_back(self, tags: list[str], kind: str, delay: float, fault: Fault) -> None:
        self.known = [tag for tag in self.known if tag not in tags]
        epoch, due = self.epoch, self.model.now + delay if delay else 0
        self.do(
            lambda: self.node.give_back(tags, kind, delay * UNIT_SECONDS),
            lambda engine: engine.requeue(epoch, tags, kind, due, self.name),
            fault,
        )

    def park(self, tag: str, task: str, fault: Fault) -> None:
        self.known.remove(tag)
        self.missing.add(task)
        epoch = self.epoch
        self.do(lambda: self.node.park(tag, task), lambda engine: engine.park(epoch, tag, task), fault)

    def bury(self, tag: str, reason: str, leaves: Leaves, fault: Fault) -> None:
        self.known.remove(tag)
        epoch, (settlement, note) = self.epoch, self._leaving(tag, leaves)

        def act() -> None:
            self.node.bury(tag, reason, "why", settlement)
            self.node.ends.flush()

        self.do(act, lambda engine: note(engine.bury(epoch, tag, reason, self.name, leaves)), fault)

    def beat(self) -> None:
        alive = self.model.beat(self.epoch)
        self.node.heartbeat.beat()
        assert self.node.heartbeat.lost == (not alive)

    def close(self) -> None:
        self.model.close(self.epoch)
        self.node.close(QUEUES)
        self.let_go()

    def check(self) -> None:
        """Compare what the node believes to hold with what it holds."""
        assert set(self.node.held) == set(self.known)
        if self.epoch in self.model.leases and not self.broken:
            assert set(self.known) == set(self.model.leased[self.epoch])
