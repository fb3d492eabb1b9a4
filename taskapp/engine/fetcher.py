"""Keeps a node's free slots filled: claims, waits for a wake-up without polling, and hands messages out.

    look ──claim──► something ──► hand out ──► look again when a slot is free
      ▲      └────► nothing ────► wait for a token, the next due time, or one second

Waiting is a blocking pop on the queues' wake lists, on a connection that does nothing
else. Every popped token leads to a claim, which passes the token on if messages are left.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import get_ident
from time import monotonic
from typing import Any

from taskapp.engine.claims import Claim, Claimed
from taskapp.engine.node import Node
from taskapp.engine.session import SILENT_SECONDS
from taskapp.engine.slots import STUCK_SECONDS, Slots
from taskapp.redis.keys import Keys
from taskapp.redis.link import NotSent
from taskapp.redis.pipe import Connect, Pipe

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1
"""Maximum duration of a wait: messages pushed by other programs wake nobody."""
SHORT_LOOK_SECONDS = 0.02
"""How long to wait after a claim that left messages for lack of a slot: their wake-ups are for other nodes."""
OPENING_LOOK_SECONDS = 0.02
"""How often to check whether a connection opened in the background is ready."""
LISTEN_SECONDS = 0.25
"""How often to check whether a connection has fallen silent."""
CLAIMED_AT_ONCE = 1_000
ANSWER_SECONDS = 0.5
"""How long the end of consuming waits for the answer to a claim."""


class _Ahead:
    """Messages claimed for one kind of slot and not handed out yet. Used by one thread; the watchdog may read it."""

    def __init__(self) -> None:
        self.messages: deque[Claimed] = deque()
        self.since = 0.0
        """When the first of them became the first (monotonic)."""

    def add(self, message: Claimed) -> None:
        """Append ``message``."""
        if not self.messages:
            self.since = monotonic()
        self.messages.append(message)

    def is_stuck(self) -> bool:
        """Return whether they have waited for more than ``STUCK_SECONDS``."""
        return bool(self.messages) and monotonic() > self.since + STUCK_SECONDS


class Fetcher:
    """Consumes some queues for one channel. Used by one thread."""

    def __init__(
        self,
        node: Node,
        connect: Connect,
        keys: Keys,
        slots: Slots,
        hand_out: Callable[[Claimed], None],
        isolates: Callable[[], bool],
    ) -> None:
        """Create a fetcher that consumes nothing yet.

        Args:
            node: Claims and holds the messages.
            connect: Opens the connection that waits for wake-ups.
            keys: Names of keys.
            slots: Limits the number of messages handed out.
            hand_out: Takes one message.
            isolates: Returns whether a task that kills its process kills nothing else.
        """
        self.node = node
        self._keys = keys
        self._slots = slots
        self.pace = slots.measured
        """Takes the time each message was held; ``None``: the slots measure it themselves."""
        self._hand_out = hand_out
        self._isolates = isolates
        node.while_held = self._give_back_held_up
        self.waiting = Pipe(connect)
        self.queues: tuple[str, ...] = ()
        self._ahead = {kind: _Ahead() for kind in slots.kinds}
        self._passed_over = False
        self._filled: set[str] = set()
        self._claiming = False
        self._must_claim = False
        self._look_at = self._listen_at = 0.0
        self._handing_out = False
        self._alone: str | None = None
        self.stopped = False
        self.handed_out = 0
        """Number of messages handed out so far."""

    def consume(self, queues: Sequence[str]) -> None:
        """Consume ``queues`` from now on, in this order; return messages of other queues that have not started."""
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
        self._give_back([message for message in self._all_ahead() if message.queue in dropped])
        if not self.node.is_ready():
            return
        if self._claiming:
            # There may be no later tick to read the answer.
            self.node.flush(monotonic() + ANSWER_SECONDS)
        # Passes on tokens that the closed connection may have taken.
        self.node.claim(dropped, 0, lambda _: None)

    def tick(self) -> None:
        """Do what is due now. Call it whenever a slot may have become free, and after ``due_seconds``."""
        if self.stopped:
            return
        now = self.node.turned_at = monotonic()
        if self._handing_out:
            return
        if not self.queues and not self.node.epoch:
            return
        if now >= self._listen_at:
            self._listen_at = now + LISTEN_SECONDS
            self._drop_deaf()
        if not self.node.is_ready():
            return
        self.node.ends.batching_thread = get_ident()
        self._hand_out_ahead()
        self.node.ends.flush()
        if self.queues:  # without queues it drains or has left them; what it runs still ends here
            self._claim_more()
            self._wait()

    def _drop_deaf(self) -> None:
        if self.node.is_deaf(self.node.pipe, SILENT_SECONDS):
            self.node.drop()
        if self.node.is_deaf(self.waiting, LOOK_SECONDS + SILENT_SECONDS):
            self.waiting.close()
            self._after_waiting_broke()

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to do until an outstanding answer arrives or ``due_seconds`` have passed."""
        if not self.node.pipe.is_open or self._must_claim:
            return False
        is_waiting = self.waiting.is_open and bool(self.waiting.unanswered) and not any(self._all_ahead())
        return self._claiming or is_waiting

    def due_seconds(self) -> float:
        """Return the number of seconds after which to call ``tick`` even if nothing has happened."""
        if self.node.pipe.is_opening or self.waiting.is_opening:
            return OPENING_LOOK_SECONDS
        if not self.node.pipe.is_open:
            return max(0.0, min(self.node.retry_at - monotonic(), LOOK_SECONDS))
        waiting_since = [ahead.since for ahead in self._ahead.values() if ahead.messages]
        if waiting_since:
            return max(0.0, min(waiting_since) + STUCK_SECONDS - monotonic())
        if self._claiming or not self._has_free_slot():
            return float(LOOK_SECONDS)
        return min(max(0.0, self._look_at - monotonic()), LOOK_SECONDS)

    def _has_free_slot(self) -> bool:
        return self.node.has_room() and any(self._slots.free(kind) > 0 for kind in self._ahead)

    def _all_ahead(self) -> Iterator[Claimed]:
        return (message for ahead in self._ahead.values() for message in ahead.messages)

    # --- claiming -----------------------------------------------------------------------------

    def _claim_more(self) -> None:
        if self._claiming or self._held_alone():
            return
        wanted = {kind: self._slots.wanted(kind, len(ahead.messages)) for kind, ahead in self._ahead.items()}
        want = max(0, min(sum(wanted.values()), CLAIMED_AT_ONCE)) if self.node.has_room() else 0
        is_time = monotonic() >= self._look_at or any(wanted[kind] for kind in self._filled)
        if not self._must_claim and not (want and is_time):
            return
        self._must_claim = False
        self._claiming = self.node.claim(
            self.queues, want, lambda claim: self._claimed(claim, want, wanted), wanted if len(wanted) > 1 else None
        )

    def _claimed(self, claim: Claim | None, want: int, wanted: dict[str, int]) -> None:
        self._claiming = False
        if claim is None:
            self._look_at = max(monotonic() + 0.1, self.node.retry_at)
            return
        for message in claim.messages:
            kind = self._slots.kind(message.envelope.task)
            wanted[kind] -= 1
            self._ahead[kind].add(message)
        self._give_back([message for message in claim.messages if message.queue not in self.queues])
        self._passed_over = claim.passed_over
        # Messages were left for slots of these kinds: claim again as soon as one is free.
        self._filled = {kind for kind, left in wanted.items() if left <= 0} if claim.passed_over else set()
        if len(claim.messages) >= want > 0:
            self._look_at = 0.0
        else:
            due = claim.next_due_seconds
            at_most = SHORT_LOOK_SECONDS if claim.passed_over else LOOK_SECONDS
            self._look_at = monotonic() + min(at_most, at_most if due is None else max(due, 0.0))
        self._hand_out_ahead()

    # --- handing out --------------------------------------------------------------------------

    def _hand_out_ahead(self) -> None:
        if self._handing_out:
            return
        self._handing_out = True
        try:
            for kind, ahead in self._ahead.items():
                self._hand_out_of(kind, ahead)
        finally:
            self._handing_out = False
        for ahead in self._ahead.values():
            if ahead.is_stuck():
                if self._slots.measured is not None:
                    self._slots.measured.was_too_fast()
                self._give_back(list(ahead.messages))
                self._look_at = monotonic() + SHORT_LOOK_SECONDS

    def _hand_out_of(self, kind: str, ahead: _Ahead) -> None:
        messages = ahead.messages
        while messages and self._slots.free(kind) > 0 and self.node.heartbeat.holds() and not self._held_alone():
            message = messages.popleft()
            # Taken out and put back: the watchdog may return it at this moment, and only one of the two can.
            if self.node.held.pop(message.tag, None) is None:
                continue
            self.node.held[message.tag] = ahead.since = monotonic()
            if self._is_suspect(message):
                if not self._take_alone(message, ahead):
                    return
            elif message.envelope.task and not self.node.has(message.envelope.task):
                self.node.park(message.tag, message.envelope.task)
                # Its wake-up is for other nodes.
                self._passed_over, self._look_at = True, monotonic() + SHORT_LOOK_SECONDS
                continue
            self.handed_out += 1
            if messages and self.pace is not None:
                self.node.watch.begin()
            self._hand_out(message)

    def _give_back_held_up(self) -> bool:
        """Return messages that wait behind a task that holds the loop's thread; called by the watchdog's thread."""
        if not self._handing_out:
            return False
        try:
            stuck = [message for ahead in self._ahead.values() if ahead.is_stuck() for message in ahead.messages]
        except RuntimeError:  # the loop's thread is back and changes the deque
            return True
        self.node.give_back([one.tag for one in stuck if self.node.held.pop(one.tag, None) is not None])
        return any(ahead.messages and not ahead.is_stuck() for ahead in self._ahead.values())

    def _is_suspect(self, message: Claimed) -> bool:
        # It was running in two crashes (or in as many as it can survive without being buried): on a node
        # where a crash kills every task it runs alone, so that the next crash shows whether it is to blame.
        return message.envelope.crashes >= self.node.suspect_from and not self._isolates()

    def _held_alone(self) -> bool:
        if self._alone is not None and self._alone not in self.node.held:
            self._alone = None
            self._look_at = 0.0
        return self._alone is not None

    def _take_alone(self, message: Claimed, ahead: _Ahead) -> bool:
        """Return all messages that have not started; return whether nothing else is held, so that it may run now."""
        self._give_back(list(self._all_ahead()))
        self.node.ends.flush()
        # An outstanding claim would bring other messages.
        if len(self.node.held) == 1 and not self._claiming:
            self._alone = message.tag
            return True
        ahead.messages.appendleft(message)
        self._look_at = monotonic() + LOOK_SECONDS
        return False

    def _give_back(self, messages: list[Claimed]) -> None:
        if not messages:
            return
        gone = {message.tag for message in messages}
        for ahead in self._ahead.values():
            kept = [message for message in ahead.messages if message.tag not in gone]
            ahead.messages.clear()
            ahead.messages.extend(kept)
        self.node.give_back([message.tag for message in messages if message.tag in self.node.held])

    # --- waiting ------------------------------------------------------------------------------

    def _wait(self) -> None:
        if self._claiming or self._passed_over or self.waiting.unanswered or monotonic() >= self._look_at:
            return
        if not self._has_free_slot() or any(self._all_ahead()):
            return
        if not self.waiting.is_open:
            self.waiting.unanswered.clear()
            try:
                if not self.waiting.open_soon():
                    return
            except NotSent:
                self._look_at = monotonic() + LOOK_SECONDS
                return
        wakes = [self._keys("wake", queue) for queue in self.queues]
        self.waiting.ask("BRPOP", *wakes, LOOK_SECONDS, on_answer=self._woken)

    def _woken(self, answer: Any) -> None:
        # Also after a second without a token: other programs push without waking anybody.
        self._look_at = 0.0
        if answer is not None:
            self._must_claim = True
        self.tick()

    def read_waiting(self) -> None:
        """Read the connection that waits for wake-ups."""
        if not self.waiting.read():
            self._after_waiting_broke()

    def _after_waiting_broke(self) -> None:
        self.waiting.unanswered.clear()
        self._look_at = 0.0
        self._must_claim = True

    # --- the end ------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop claiming and return messages that have not been handed out."""
        if not self.stopped:
            self.stopped = True
            self.node.turned_at = float("inf")
            self.consume(())
