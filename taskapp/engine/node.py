"""One process as a consumer: its epoch, the messages it holds, and their settlement.

It belongs to the process, never to a channel: Celery recreates channels at any time.
"""

from __future__ import annotations

import logging
import select
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic, sleep
from typing import Any

import hiredis
from redis.exceptions import RedisError

from taskapp.engine.claims import Claim, Claimed
from taskapp.engine.clock import Reading, steady_ms
from taskapp.engine.envelope import unseal
from taskapp.engine.heartbeat import named
from taskapp.engine.options import NodeProfile, Options
from taskapp.engine.session import Session, claimed_when
from taskapp.engine.settle_buffer import log_stale
from taskapp.engine.settlement import STEP_BURY, STEP_BURY_UNREPORTED, Pause, Settlement
from taskapp.engine.suspects import NOBODY, Suspects
from taskapp.engine.watchdog import Watchdog
from taskapp.redis.link import Link, NotSent, is_denied
from taskapp.redis.pipe import Connect

logger = logging.getLogger(__name__)


MISSING_TYPES_MOST = 100
GIVEN_BACK_AT_ONCE = 200
"""Messages in one step; each takes Redis about 10 us."""
HEARTBEAT_END_SECONDS = 0.5
ADOPT_SECONDS = 0.1
"""How often a busy node looks for messages of stock clients; an idle one does with every look."""


class Node(Session):
    """Claims, settles, returns messages. Only ``close`` and ``flush`` wait for Redis; nothing raises if it is away."""

    def __init__(self, connect: Connect, options: Options, role: NodeProfile) -> None:
        self.watch = Watchdog(self._look)
        self.while_held: Callable[[], bool] = bool
        """Called by the watchdog: returns messages that a long task blocks; returns whether any are left."""
        super().__init__(connect, options, role, self.watch.begin)
        self._missing_types: dict[str, None] = {}
        self._known_types: frozenset[str] | None = None
        self.adopt_at = 0.0
        """When the next claim looks for messages of stock clients first (monotonic)."""
        self.suspect_from = max(1, min(2, options.crash_limit - 1))
        """Number of crashes from which a message runs alone."""
        self.has_crashed = False
        """Whether to let the lease expire, so that its messages count a crash when they are reaped."""

    # --- claiming -----------------------------------------------------------------------------

    def claim(
        self, queues: Sequence[str], want: int, on_claim: Callable[[Claim | None], None],
        slots: Mapping[str, int] | None = None,
    ) -> bool:  # fmt: skip
        """Request up to ``want`` messages of ``queues``, the first queue first; return whether the request was sent.

        Args:
            queues: Queues in the order in which they are served.
            want: Maximum number of messages.
            on_claim: Gets the answer, or ``None`` if there will be none.
            slots: Maximum number of messages for each kind of slot; ``None``: any.
        """
        self._claims += 1
        guard = self._options.starvation_guard
        from_below = guard > 0 and self._claims % guard == 0
        if want and monotonic() >= self.adopt_at:
            self._adopt(queues, want, from_below=from_below)
        args = (
            self._options.prefix, self.clock.predicted_ms(), self.epoch, self._claims, want, int(from_below),
            ",".join(f"{kind}:{free}" for kind, free in slots.items()) if slots else "",
            len(queues), *queues, *self._missing_types,
        )  # fmt: skip
        epoch, sent_ms = self.epoch, steady_ms()

        def on_answer(answer: Any) -> None:
            on_claim(self._claimed(epoch, answer, sent_ms))

        return self.pipe.send("claim", args, on_answer)

    def _adopt(self, queues: Sequence[str], want: int, *, from_below: bool) -> None:
        """Move messages that stock clients pushed to kombu's lists into ours, no more than this node is about to claim.

        Workers of stock Celery on the same queues get their share of the rest.
        """
        self.adopt_at = monotonic() + ADOPT_SECONDS
        args = (self._options.prefix, self.clock.predicted_ms(), want, int(from_below), *queues)
        self.pipe.send("adopt", args, self._adopted)

    def _adopted(self, answer: Any) -> None:
        if answer == 1:
            self.adopt_at = 0.0

    def _claimed(self, epoch: str, answer: Any, sent_ms: float) -> Claim | None:
        if isinstance(answer, Exception):
            if isinstance(answer, hiredis.ReplyError):
                if str(answer).startswith("LEASELOST"):
                    self.heartbeat.lost = self.heartbeat.lost or epoch == self.heartbeat.epoch
                else:
                    self._trouble.refused("the broker refuses claims: %s", answer)
                    # Finds messages that could not be put back into their queue, and the permission that is missing.
                    self._must_recover = is_denied(answer)
                    self._wait()
            return None
        self._trouble.end()
        now, wall, offset, next_due, passed_over, set_aside = answer[:6]
        corrected = self.clock.observe(Reading(now, wall, offset), sent_ms, steady_ms())
        if corrected is not None:
            logger.warning("the clock of Redis was changed; the engine keeps its own time, %d ms off", corrected)
            self._send("correct", (self._options.prefix, 0, offset, corrected, self._options.lease_ms), self._ignore)
        if isinstance(set_aside, list):
            set_aside, buried, revoked = set_aside
            if buried:
                self._role.on_buried(named(buried))
            if revoked:
                self._role.on_revoked([one.decode(errors="replace") for one in revoked])
        if set_aside:
            logger.error("%d keys of queues were not lists; renamed them to taskapp:{queue}:aside:…", set_aside)
        lease = self._keys("leased", epoch)
        messages, at = [], monotonic()
        for tag, blob in zip(answer[6::2], answer[7::2], strict=True):
            name = tag.decode(errors="surrogateescape")
            _, priority, queue = name.split(":", 2)
            self.held[name] = at
            messages.append(Claimed(name, queue, int(priority), unseal(blob), lease))
        due = (next_due - now) / 1_000 if next_due else None
        return Claim(messages, due, set_aside, bool(passed_over))

    # --- ending a claim -----------------------------------------------------------------------

    def settle(self, tag: str, settlement: Settlement | None = None) -> None:
        """Finish a claim together with its run's settlement, in one step. Changes nothing if the lease was lost.

        On the thread that calls ``ends.flush`` it waits for that call, to be sent together with others.
        """
        self._finish(tag, settlement)

    def bury(self, tag: str, reason: str, detail: str, settlement: Settlement | None = None) -> None:
        """Move a claimed message to the dead letters; otherwise like ``settle``.

        Without a ``settlement`` its failure is unreported: a worker fails the task, see ``NodeProfile.on_buried``.
        """
        step = STEP_BURY_UNREPORTED if settlement is None else STEP_BURY
        self._finish(tag, settlement, step, reason, detail[:2_000])

    def _finish(self, tag: str, settlement: Settlement | None, *burial: str) -> None:
        # First, so that a settlement that cannot be encoded leaves the claim as it is.
        steps = burial if settlement is None else (*settlement.steps(), *burial)
        if self.held.pop(tag, None) is None:
            log_stale((tag.encode(errors="surrogateescape"),))
            return
        self.ends.add(tag, steps, settlement.run if settlement is not None else None)

    def _look(self) -> bool:
        self.ends.flush_stragglers()
        return self.while_held() or self.ends.are_waiting

    def give_back(
        self, tags: Sequence[str], kind: str = "unstarted", delay_seconds: float = 0.0, pauses: Iterable[Pause] = ()
    ) -> None:
        """Return claimed messages to the front of their queue, or to the delayed messages.

        Args:
            tags: Tags of the messages.
            kind: ``unstarted`` counts nothing, ``retry`` a delivery, ``crashed`` a crash of its own.
            delay_seconds: If above 0, they become ready after this delay.
            pauses: Pauses that their runs asked for; those of other runs are part of their settlement.
        """
        for pause in pauses:
            self.ends.insist("limit_pause", (pause.limit, pause.key, pause.left_ms), self._ignore)
        if self.is_leaving:
            return
        options = self._options
        due = self.clock.now_ms() + int(delay_seconds * 1_000) if delay_seconds > 0 else 0
        for some in _batches(tags):
            for tag in some:
                self.held.pop(tag, None)
            args = (kind, options.crash_limit, options.dead_letters_limit, due, self._role.name, *some)
            self.ends.insist("requeue", args, self._given_back)

    def park(self, tag: str, task: str) -> None:
        """Park a message until a node has the task type ``task``; claims pass over the type from now on."""
        self._missing_types[task] = None
        if len(self._missing_types) > MISSING_TYPES_MOST:
            del self._missing_types[next(iter(self._missing_types))]
        self.held.pop(tag, None)
        self.ends.insist("park", (tag, task), log_stale)

    def count(self, name: str) -> None:
        """Count a message that is dropped: ``expired``, ``revoked``."""
        self.pipe.ask("HINCRBY", self._keys("counts"), name, 1, on_answer=self._ignore)

    def publish(self, commands: Sequence[tuple[Any, ...]]) -> bool:
        """Send plain commands without waiting for their answers; return whether they were sent."""
        return all(self.pipe.ask(*command, on_answer=self._ignore) for command in commands)

    def has_room(self) -> bool:
        """Return whether this node may hold more messages."""
        return self._role.has_room()

    def has(self, task: str) -> bool:
        """Return whether this node runs tasks of type ``task``."""
        types = self._types()
        return not types or task in types

    def _types(self) -> frozenset[str]:
        if self._known_types is None:
            self._known_types = frozenset(self._role.types())
        return self._known_types

    def _given_back(self, answer: Any) -> None:
        stale, buried = answer
        log_stale(stale)
        if buried:
            self._role.on_buried(named(buried))

    # --- the end ------------------------------------------------------------------------------

    def close(
        self, queues: Sequence[str] = (), within_seconds: float = 3.0, *, reads: bool = True,
        suspects: Suspects = NOBODY,
    ) -> None:  # fmt: skip
        """Return the messages held and end the epoch; wait up to ``within_seconds``.

        Args:
            queues: Queues whose wake-up this node may have taken; it is passed on.
            within_seconds: Maximum time to wait for the server.
            reads: Whether this thread may read the connection; with ``False`` any thread may call this.
            suspects: Claims that count a crash if they are still held.
        """
        self.heartbeat.stop()
        if not self.epoch:
            return
        link = Link(self._connect)
        deadline = monotonic() + within_seconds
        try:
            self.ends.flush(at_once=True)
            if reads and self.ready():
                self.flush(deadline)
            self._await_connection(link)
            self._send_over(link)
            if not self.has_crashed:
                self._give_back_suspects(link, suspects, deadline)
            while not self.has_crashed and link.run("close", self._options.prefix, 0, self.epoch, *queues):
                if monotonic() > deadline:
                    break
        except RedisError as error:
            logger.warning("could not return messages: %s; other nodes get them when the lease ends", error)
        finally:
            link.close()
            if reads:
                self.pipe.close()
            else:
                self.pipe.shut()
            self.epoch = ""

    def _await_connection(self, link: Link) -> None:
        """Connect ``link``; if that fails, once more when the heartbeat has closed its connection.

        There may be no other file descriptor left.
        """
        try:
            link.command("PING")
        except NotSent:
            deadline = monotonic() + HEARTBEAT_END_SECONDS
            while self.heartbeat.is_connected and monotonic() < deadline:
                sleep(0.01)

    def _give_back_suspects(self, link: Link, suspects: Suspects, deadline: float) -> None:
        args = (suspects.kind, self._options.crash_limit, self._options.dead_letters_limit, 0, self._role.name)
        for tags in _batches(sorted((tag for tag in suspects.tags if tag in self.held), key=claimed_when)):
            if monotonic() > deadline:
                break
            self._given_back(link.run("requeue", self._options.prefix, 0, self.epoch, *args, *tags))

    def flush(self, deadline: float) -> None:
        """Wait until everything sent is answered, or until ``deadline`` (monotonic)."""
        self.ends.flush()
        while self.pipe.unanswered and self.pipe.is_open and (left := deadline - monotonic()) > 0:
            if select.select([self.pipe.socket], [], [], left)[0]:
                self.read()


def _batches(tags: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield ``tags`` in batches, the last ones first: what is returned last ends up in front."""
    for start in reversed(range(0, len(tags), GIVEN_BACK_AT_ONCE)):
        yield tags[start : start + GIVEN_BACK_AT_ONCE]
