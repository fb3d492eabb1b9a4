"""A node's connection and its lease: opened, recovered after a broken connection, replaced when lost.

connect ──► open ──► the epoch lives ──connection breaks──► connect ──► recover ──► the epoch lives
▲                                                            ├─ refused ──► again, later
└────────────────────────────── the lease is gone ◄──────────┘
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from taskapp.engine.clock import Clock
from taskapp.engine.heartbeat import Heartbeat
from taskapp.engine.options import NodeProfile, Options
from taskapp.engine.settle_buffer import LeaseGone, SettleBuffer
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link, NotSent
from taskapp.redis.pipe import Connect, Pipe, SentScript
from taskapp.redis.trouble import Trouble

logger = logging.getLogger(__name__)

SILENT_SECONDS = 0.5
"""How long a call may remain unanswered before the node checks whether the server answers other connections."""
TRIAL_SECONDS = 1.0
"""Interval between trials of the permissions while one that a settle needs is missing."""
TURN_SECONDS = 1.0
"""Maximum time between two turns of the loop that drives a node."""
NEVER_AGAIN = ("open", "recover", "adopt", "claim", "")
"""Calls that are not repeated over a new connection, which begins with its own ``recover``."""


class Session:
    """The connection of one node and the lease of its claims. Nothing raises if the server is away."""

    def __init__(self, connect: Connect, options: Options, role: NodeProfile, keep_watch: Callable[[], None]) -> None:
        """Create a session that is not connected.

        Args:
            connect: Opens a connection to the server.
            options: Delivery options.
            role: Capabilities of the node.
            keep_watch: See ``SettleBuffer``.
        """
        self._options = options
        self._role = role
        self._keys = Keys(options.prefix)
        self.pipe = Pipe(connect, ("open", "limit", "recover", "adopt", "claim", "settle", "requeue", "park"))
        """The connection to poll: when it is readable, call ``read``."""
        self._connect = connect
        self._opening = threading.Lock()
        self._unsent: list[SentScript] = []
        self._keeping = threading.Lock()
        self._claims = 0
        self.retry_at = 0.0
        """When to retry after a failure (monotonic)."""
        self._trouble = Trouble()
        self._must_recover = False
        """Whether the server refused to recover the lease, which may still live."""
        self.turned_at = float("inf")
        """Start of the last turn of the loop that drives this node (monotonic); infinity if no loop does."""
        self.clock = Clock()
        self.epoch = ""
        self.held: dict[str, float] = {}
        """All unsettled messages of this node: tag to time of claim (monotonic)."""
        self.ends = SettleBuffer(self._send_for_epoch, keep_watch, options, role)
        """Finished claims that are not yet settled on the server."""
        self.heartbeat = Heartbeat(
            Link(connect), options, self.clock, lambda buried: role.on_buried(buried), role.about_as_json,
            self.stands_still,
        )  # fmt: skip
        self.is_leaving = False
        """Whether the messages held are returned unchanged at the end, regardless of how their runs end."""

    def read(self) -> None:
        """Read answers and call their callbacks."""
        if not self.pipe.read():
            self._after_loss()

    def ready(self) -> bool:
        """Like ``is_ready``, but wait for the connection; return whether claims can be sent."""
        while not self.is_ready():
            if not self.pipe.is_opening:
                return False
            self.pipe.wait_opened()
        return True

    def is_ready(self) -> bool:
        """Connect, open an epoch, recover after a broken connection; return whether claims can be sent. Never waits.

        Call it often: failures are retried, at growing intervals.
        """
        if self.pipe.is_open and not self.heartbeat.lost and not self._must_recover and not self.ends.is_denied:
            return True
        if self.is_leaving or monotonic() < self.retry_at:
            return False
        with self._opening:
            try:
                if not self.pipe.is_open and not self._reconnect():
                    return False
            except NotSent as error:
                self._trouble.away(error)
                self._wait()
                return False
            if self.heartbeat.lost or not self.epoch:
                self._begin_epoch()
            elif self._must_recover or self.ends.is_denied:
                self.retry_at = monotonic() + TRIAL_SECONDS
                self._recover()  # names the permission
        return not self.ends.is_denied

    def _wait(self) -> None:
        """Schedule the next attempt; the pause grows with the duration of the failure."""
        self.retry_at = monotonic() + self._trouble.pause_seconds()

    def is_deaf(self, pipe: Pipe, patience_seconds: float) -> bool:
        """Return whether ``pipe`` has been silent for ``patience_seconds`` while the server answers other connections.

        That happens if the network drops a connection without telling either end.
        """
        if not pipe.is_silent_since(monotonic() - patience_seconds):
            return False
        if not pipe.is_silent_since(self.heartbeat.answered_at - patience_seconds):
            self.heartbeat.hurry()
            return False
        logger.warning("a connection to the broker is silent while others get answers; reconnecting")
        return True

    def drop(self) -> None:
        """Close the connection; ``is_ready`` opens another."""
        self.pipe.close()
        self._after_loss()

    def stands_still(self) -> bool:
        """Return whether the loop that drives this node is stuck for another reason than a task that it runs."""
        patience_seconds = self._options.lease_seconds / 3 + TURN_SECONDS
        return monotonic() > self.turned_at + patience_seconds and not self._role.is_in_task()

    def _begin_epoch(self) -> None:
        first = not self.epoch
        finished = self.ends.forget()
        lost = len(self.held) + finished
        if self.heartbeat.was_opened and lost:
            logger.error(
                "this node was silent for longer than its lease of %g s; other nodes now have its %d messages",
                self._options.lease_seconds, lost,
            )  # fmt: skip
        self.held.clear()
        self._must_recover = False
        # Claim numbers continue: a run of the previous epoch that ends now must not find its tag in this one.
        self.epoch = uuid.uuid4().hex
        self.heartbeat.begin(self.epoch)
        types = [part for name_and_kind in sorted(self._role.types().items()) for part in name_and_kind]
        args = (
            self._options.prefix,
            self.clock.predicted_ms(),
            self.epoch,
            self._options.lease_ms,
            self._role.about_as_json(),
            *types,
        )
        epoch = self.epoch
        self._send("open", args, lambda answer: self._opened(epoch, answer))
        if numbers := self._role.limits():
            limits = [part for name, known in numbers.items() for part in (name, json.dumps(known))]
            self._send("limit", (self._options.prefix, 0, "declared", *limits), self._ignore)
        if first:
            self.heartbeat.start()

    def _opened(self, epoch: str, answer: Any) -> None:
        if isinstance(answer, Exception):
            self._trouble.refused("the broker refuses a lease: %s", answer)
            self.heartbeat.lost = self.heartbeat.lost or epoch == self.epoch
            self._wait()
        else:
            self.heartbeat.opened(epoch)
            self._trouble.end()

    def _reconnect(self) -> bool:
        """Connect in the background; return whether the connection is open."""
        lost = [call for call in self.pipe.unanswered if call.name not in NEVER_AGAIN]
        with self._keeping:
            self._unsent = lost + self._unsent
        self._after_loss()
        self.pipe.unanswered.clear()
        if not self.pipe.open_soon():
            return False
        if self.epoch:
            self._recover()
        return True

    def _recover(self) -> None:
        self._must_recover = False
        self._ask_for_tags(self.epoch, self._claims, b"0", set())

    def _ask_for_tags(self, epoch: str, claims: int, at: bytes, there: set[str]) -> None:
        """Request the tags that the server holds for this node; they arrive in pages."""
        args = (self._options.prefix, 0, epoch, claims, at)

        def on_answer(answer: Any) -> None:
            if isinstance(answer, Exception):
                self._refused_to_recover(epoch, answer)
            elif not answer[0]:
                self._recovered(epoch, None)
            else:
                there.update(tag.decode(errors="surrogateescape") for tag in answer[2:])
                if answer[1] == b"0":
                    self._recovered(epoch, there)
                else:
                    self._ask_for_tags(epoch, claims, answer[1], there)

        self.pipe.send("recover", args, on_answer)

    def _refused_to_recover(self, epoch: str, error: Exception) -> None:
        """Retry later: a replica, a full disk or a lost permission does not mean that the lease has ended."""
        if epoch == self.epoch:
            self._trouble.refused("the broker refuses to recover a lease: %s", error)
            self._must_recover = True
            self._wait()

    def _after_loss(self) -> None:
        for call in list(self.pipe.unanswered):
            if call.name == "claim":
                self.pipe.unanswered.remove(call)
                call.on_answer(NotSent("the connection broke"))

    def _recovered(self, epoch: str, there: set[str] | None) -> None:
        with self._keeping:
            calls, self._unsent = [call for call in self._unsent if call.name not in NEVER_AGAIN], []
        if epoch != self.epoch:
            return
        self._trouble.end()
        if there is None:
            # Other nodes now have the messages of those calls.
            self.heartbeat.lost = True
            for call in calls:
                if call.name == "settle":
                    call.on_answer(LeaseGone())
            return
        self.heartbeat.opened(self.epoch)
        for call in calls:
            # A call that was carried out before the connection broke finds nothing and does nothing.
            prefix, _, *rest = call.args
            self._send(call.name, (prefix, self.clock.predicted_ms(), *rest), self._after_repeat(call))
        # Also those of calls sent since: the server listed the tags before it carries them out.
        sent = (*calls, *self.pipe.unanswered)
        mentioned = {arg for call in sent for arg in call.args if isinstance(arg, str)}
        mentioned |= self.ends.tags()
        # Messages of claims whose answer was lost.
        if unknown := [tag for tag in there if tag not in self.held and tag not in mentioned]:
            logger.info("returning %d messages whose claim was never answered", len(unknown))
            self.give_back(sorted(unknown, key=claimed_when))

    def _send(self, name: str, args: tuple[Any, ...], on_answer: Callable[[Any], None]) -> None:
        if not self.pipe.send(name, args, on_answer):
            with self._keeping:
                self._unsent.append(SentScript(name, args, on_answer))

    def _send_over(self, link: Link) -> None:
        """Send the calls that this node's own connection has not delivered, so that no finished task runs again.

        A call that was carried out although its answer is missing finds nothing and does nothing.
        """
        with self._keeping:
            calls, self._unsent = [*self.pipe.unanswered.copy(), *self._unsent], []
        for call in calls:
            if call.name not in NEVER_AGAIN:
                prefix, _, *rest = call.args
                self._after_repeat(call)(link.run(call.name, prefix, self.clock.predicted_ms(), *rest))

    def _after_repeat(self, call: SentScript) -> Callable[[Any], None]:
        """Return what takes the answer to ``call`` when it is sent again."""
        return _without_stale(call.on_answer) if call.name in ("settle", "requeue") else self._ignore

    def _ignore(self, answer: Any) -> None:
        if isinstance(answer, Exception):
            logger.error("the broker refused a command: %s", answer)

    def _send_for_epoch(self, name: str, args: tuple[Any, ...], on_answer: Callable[[Any], None]) -> None:
        self._send(name, (self._options.prefix, self.clock.predicted_ms(), self.epoch, *args), on_answer)

    def give_back(self, tags: Sequence[str], kind: str = "unstarted", delay_seconds: float = 0.0) -> None:
        """Return claimed messages, see ``Node``."""
        raise NotImplementedError  # overridden by ``Node``: a session alone claims nothing


def _without_stale(on_answer: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return ``on_answer`` without the stale tags of a repeated call, whose first attempt may have settled them."""
    return lambda answer: on_answer(answer if isinstance(answer, Exception) else [[], *answer[1:]])


def claimed_when(tag: str) -> list[int]:
    """Return the number of the claim and of the message within it, as a sort key."""
    return [int(number) for number in tag.split(":", 1)[0].split(".")]
