"""Keeps a node's free slots filled: claims, waits for a wake-up without polling, and hands messages out.

    look ──claim──► something ──► hand out ──► look again when a slot is free
      ▲      └────► nothing ────► wait for a token, the next due time, or one second

Whoever waits holds a blocking pop on the queues' wake lists, on a connection that does nothing
else. Every token popped is answered by a claim, which passes it on if messages are left.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from threading import get_ident
from time import monotonic
from typing import Any

from taskapp.broker.claims import Claim, Claimed
from taskapp.broker.node import Node
from taskapp.broker.pipe import Connect, Pipe
from taskapp.redis import Keys, NotSent

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1
"""How long a wait lasts at most: messages pushed by others than us wake nobody."""
AHEAD_SECONDS = 0.02
"""How much work may be claimed beyond the free slots, measured by how long tasks take."""
MOST_AHEAD = 64
ANSWER_SECONDS = 0.5
"""How long the end of consuming waits for the answer to a claim."""
STUCK_SECONDS = 0.2
"""A message claimed ahead that has waited so long is given back: what runs is longer than thought."""


class Consumer:
    """Consumes some queues for one channel. Used by one thread."""

    def __init__(
        self,
        node: Node,
        connect: Connect,
        keys: Keys,
        free: Callable[[], int],
        hand_out: Callable[[Claimed], None],
        isolates: Callable[[], bool],
    ) -> None:
        """Make a consumer that consumes nothing yet.

        Args:
            node: Whose messages they are.
            connect: How to reach the server, for the connection that waits.
            keys: Names of keys.
            free: How many more messages may be handed out now.
            hand_out: Takes one message.
            isolates: Whether a task that kills its process kills nothing else.
        """
        self.node = node
        self._keys = keys
        self._free = free
        self._hand_out = hand_out
        self._isolates = isolates
        node.while_held = self._give_back_held_up
        self.waiting = Pipe(connect)
        self.queues: tuple[str, ...] = ()
        self._ahead: deque[Claimed] = deque()
        self._ahead_since = 0.0
        self._claiming = False
        self._must_claim = False
        self._look_at = 0.0
        self._mean_seconds = 0.1
        self._handing_out = False
        self._alone: str | None = None
        self.stopped = False
        self.handed_out = 0
        """How many messages were handed out so far."""

    def consume(self, queues: Sequence[str]) -> None:
        """Consume ``queues`` from now on, in this order; what was claimed of others goes back at once."""
        if tuple(queues) == self.queues:
            return
        dropped = [queue for queue in self.queues if queue not in queues]
        self.queues = tuple(queues)
        self._look_at = 0.0
        # The blocking pop names the old queues.
        self.waiting.close()
        self.waiting.unanswered.clear()
        if dropped:
            self._leave(dropped)

    def _leave(self, dropped: Sequence[str]) -> None:
        self._give_back([message for message in self._ahead if message.queue in dropped])
        if not self.node.ready():
            return
        if self._claiming:
            # Nobody may come back to read the answer.
            self.node.flush(monotonic() + ANSWER_SECONDS)
        # The tokens this wait may have taken with it.
        self.node.claim(dropped, 0, lambda _: None)

    def tick(self) -> None:
        """Do what can be done now. Call it whenever a slot may have become free, and at ``due_seconds``."""
        if self.stopped or not self.queues or self._handing_out:
            return
        if not self.node.ready():
            return
        self.node.batching_thread = get_ident()
        self._hand_out_ahead()
        self.node.flush_settled()
        self._claim_more()
        self._wait()

    def due_seconds(self) -> float:
        """Return in how many seconds to ``tick`` although nothing has happened."""
        if self._ahead:
            return max(0.0, self._ahead_since + STUCK_SECONDS - monotonic())
        if self._claiming or self._free() <= 0:
            return float(LOOK_SECONDS)
        return min(max(0.0, self._look_at - monotonic()), LOOK_SECONDS)

    # --- claiming -----------------------------------------------------------------------------

    def _claim_more(self) -> None:
        if self._claiming or self._held_alone():
            return
        free = self._free()
        ahead = min(MOST_AHEAD, int(AHEAD_SECONDS / self._mean_seconds))
        want = free + ahead - len(self._ahead) if free > 0 or ahead else 0
        few = len(self._ahead) * 2 <= ahead and want > 0
        if not self._must_claim and not (few and monotonic() >= self._look_at):
            return
        self._must_claim = False
        want = max(0, min(want, 1_000))
        self._claiming = self.node.claim(self.queues, want, lambda claim: self._claimed(claim, want))

    def _claimed(self, claim: Claim | None, want: int) -> None:
        self._claiming = False
        if claim is None:
            self._look_at = monotonic() + 0.1
            return
        if not self._ahead:
            self._ahead_since = monotonic()
        self._ahead.extend(claim.messages)
        self._give_back([message for message in claim.messages if message.queue not in self.queues])
        if len(claim.messages) >= want > 0:
            self._look_at = 0.0
        else:
            due = claim.next_due_seconds
            self._look_at = monotonic() + min(LOOK_SECONDS, LOOK_SECONDS if due is None else max(due, 0.0))
        self._hand_out_ahead()

    # --- handing out --------------------------------------------------------------------------

    def _hand_out_ahead(self) -> None:
        if self._handing_out:
            return
        self._handing_out = True
        try:
            while self._ahead and self._free() > 0 and self.node.heartbeat.holds() and not self._held_alone():
                message = self._ahead.popleft()
                # Taken out and put back: the watch may give it back at this moment, and only one of the two can.
                if self.node.held.pop(message.tag, None) is None:
                    continue
                self.node.held[message.tag] = self._ahead_since = monotonic()
                if self._is_suspect(message):
                    if not self._take_alone(message):
                        return
                elif message.envelope.task and not self.node.has(message.envelope.task):
                    self.node.park(message.tag, message.envelope.task)
                    continue
                self.handed_out += 1
                if self._ahead:
                    self.node.watch.begin()
                self._hand_out(message)
        finally:
            self._handing_out = False
        if self._ahead and monotonic() > self._ahead_since + STUCK_SECONDS:
            self._mean_seconds = max(self._mean_seconds, AHEAD_SECONDS)
            self._give_back(list(self._ahead))
            self._look_at = monotonic() + AHEAD_SECONDS

    def _give_back_held_up(self) -> bool:
        """Give back what waits behind a task that holds the loop's own thread; called by another."""
        if not (self._handing_out and self._ahead):
            return False
        if monotonic() < self._ahead_since + STUCK_SECONDS:
            return True
        try:
            waiting = tuple(self._ahead)
        except RuntimeError:  # the thread is back, and takes from it
            return True
        self.node.give_back([one.tag for one in waiting if self.node.held.pop(one.tag, None) is not None])
        return False

    def ran(self, seconds: float) -> None:
        """Take note of how long a message was held from handing out to its end."""
        self._mean_seconds += (max(seconds, 1e-4) - self._mean_seconds) * (0.5 if seconds > self._mean_seconds else 0.1)

    def _is_suspect(self, message: Claimed) -> bool:
        # It has killed, or was near when something did, twice: on a node where that is everybody's
        # death it runs alone, so that it is clear who it was.
        return message.envelope.crashes >= 2 and not self._isolates()

    def _held_alone(self) -> bool:
        if self._alone is not None and self._alone not in self.node.held:
            self._alone = None
            self._look_at = 0.0
        return self._alone is not None

    def _take_alone(self, message: Claimed) -> bool:
        """Give back all that has not started; say whether nothing else is held, so that it may run now."""
        self._give_back(list(self._ahead))
        self.node.flush_settled()
        # A claim on its way would put others beside it.
        if len(self.node.held) == 1 and not self._claiming:
            self._alone = message.tag
            return True
        self._ahead.appendleft(message)
        self._look_at = monotonic() + LOOK_SECONDS
        return False

    def _give_back(self, messages: list[Claimed]) -> None:
        if not messages:
            return
        gone = {message.tag for message in messages}
        self._ahead = deque(message for message in self._ahead if message.tag not in gone)
        self.node.give_back([message.tag for message in messages if message.tag in self.node.held])

    # --- waiting ------------------------------------------------------------------------------

    def _wait(self) -> None:
        if self._claiming or self._ahead or self.waiting.unanswered or monotonic() >= self._look_at:
            return
        if self._free() <= 0:
            return
        if not self.waiting.is_open:
            self.waiting.unanswered.clear()
            try:
                self.waiting.open()
            except NotSent:
                self._look_at = monotonic() + LOOK_SECONDS
                return
        wakes = [self._keys("wake", queue) for queue in self.queues]
        self.waiting.ask("BRPOP", *wakes, LOOK_SECONDS, on_answer=self._woken)

    def _woken(self, answer: Any) -> None:
        # Also after a second of nothing: it may have been pushed by someone who wakes nobody.
        self._look_at = 0.0
        if answer is not None:
            self._must_claim = True
        self.tick()

    def read_waiting(self) -> None:
        """Read the connection that waits."""
        if not self.waiting.read():
            self.waiting.unanswered.clear()
            self._look_at = 0.0
            self._must_claim = True

    # --- the end ------------------------------------------------------------------------------

    def stop(self) -> None:
        """Claim nothing more and give back at once what has not been handed out."""
        if not self.stopped:
            self.stopped = True
            self.consume(())
