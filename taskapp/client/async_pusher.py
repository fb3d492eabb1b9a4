"""Pushing for coroutines: one thread per process pushes the messages of all event loops, in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from time import monotonic

from taskapp.background import LazyThread, PerProcess
from taskapp.engine.producer import (
    PUSHED_AT_ONCE,
    PUSHED_BYTES_AT_ONCE,
    ROOM_SECONDS,
    Message,
    Producer,
    has_time,
    refused_by,
)
from taskapp.errors import NotQueued, PushError
from taskapp.errors.publishing import QueueFull

logger = logging.getLogger(__name__)


LEAST_SECONDS = 0.1
"""Minimum time left for another attempt."""


class _PushRequest:
    """The messages of one coroutine, pushed together, and the future it awaits."""

    def __init__(self, producer: Producer, messages: Sequence[Message], deadline: float) -> None:
        self.producer, self.messages, self.deadline = producer, messages, deadline
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.size = sum(len(message.blob) for message in messages)
        self._ticket = [None]

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]

    def take(self) -> bool:
        """Claim the request, to push or withdraw it; return whether the caller is the first to do so."""
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True

    def put_back(self) -> bool:
        """Release the request; return whether its coroutine still waits."""
        self._ticket.append(None)
        return not self.future.cancelled()

    def has_time(self) -> bool:
        """Return whether there is time for another attempt."""
        return monotonic() + LEAST_SECONDS < self.deadline


class Pusher:
    """Pushes requests in the order in which they arrive, and resolves their futures."""

    def __init__(self) -> None:
        self._requests: SimpleQueue[_PushRequest] = SimpleQueue()
        self._thread = LazyThread(self._run, "pusher")

    async def push(self, producer: Producer, messages: Sequence[Message], deadline_seconds: float) -> None:
        """Push ``messages`` like ``Producer.push``, without blocking the event loop.

        If it is cancelled before its turn, nothing is queued; afterwards, the messages may be.

        Raises:
            NotQueued, SubmitOutcomeUnknown, BrokerFull, QueueFull: See ``Producer.push``.
        """
        deadline = monotonic() + deadline_seconds
        while True:
            try:
                await self._push_now(producer, messages, deadline)
            except QueueFull as full:
                # Waits here, not on the thread, which pushes to other queues in the meantime.
                if not producer.waits_for_room:
                    raise
                messages = refused_by(full, messages)
                await asyncio.sleep(ROOM_SECONDS)
                if not has_time(deadline):
                    raise
            else:
                return

    async def _push_now(self, producer: Producer, messages: Sequence[Message], deadline: float) -> None:
        request = _PushRequest(producer, messages, deadline)
        self._thread.start()
        self._requests.put(request)
        try:
            await request.future
        except asyncio.CancelledError:
            request.take()
            raise

    # --- on the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        taken: list[_PushRequest] = []
        while True:
            if not taken:
                taken.append(self._requests.get())
            self._take_more(taken)
            batch = [request for request in taken if request.producer is taken[0].producer]
            rest = [request for request in taken if request.producer is not taken[0].producer]
            taken = self._push(batch) + rest

    def _take_more(self, taken: list[_PushRequest]) -> None:
        """Add waiting requests, up to the size of one push."""
        count, size = sum(len(request.messages) for request in taken), sum(request.size for request in taken)
        while count < PUSHED_AT_ONCE and size < PUSHED_BYTES_AT_ONCE:
            try:
                taken.append(self._requests.get_nowait())
            except Empty:
                return
            count, size = count + len(taken[-1].messages), size + taken[-1].size

    @staticmethod
    def _push(batch: list[_PushRequest]) -> list[_PushRequest]:
        """Push ``batch`` and resolve its futures; return the requests to try again."""
        again: list[_PushRequest] = []
        groups = [batch]
        while groups:
            mine = [request for request in groups.pop() if request.take()]
            messages = [message for request in mine for message in request.messages]
            if not messages:
                continue
            try:
                mine[0].producer.push_now(messages, deadline=min(request.deadline for request in mine))
            except NotQueued as error:
                # Requests that came later have more time.
                late = [request for request in mine if request.has_time() and error.about(request.ids)]
                _report([(request, error.about(request.ids)) for request in mine if request not in late])
                again += [request for request in late if request.put_back()]
            except QueueFull as error:
                apart = _apart(mine, error)
                groups += [[request for request in group if request.put_back()] for group in apart]
            except PushError as error:
                _report([(request, error.about(request.ids)) for request in mine])
            except BaseException as error:  # noqa: BLE001 - passed on to the coroutines; the thread must live on
                _report([(request, error) for request in mine])
            else:
                _report([(request, None) for request in mine])
        return again


Outcome = tuple[_PushRequest, BaseException | None]


def _apart(requests: list[_PushRequest], full: QueueFull) -> list[list[_PushRequest]]:
    """Resolve what is decided about ``requests``, pushed together; return groups to push, the last one first.

    A request is refused if it was pushed alone, or if its queue has no room at all.
    """
    left = []
    for request in requests:
        request.messages = refused_by(full, request.messages)  # an earlier step may have queued some
        left += [request] if request.messages else []
    there = [request for request in left if any(message.queue == full.queue for message in request.messages)]
    others = [request for request in left if request not in there]
    is_refused = len(requests) == 1 or full.waiting >= full.limit
    decided = [request for request in requests if not request.messages] + (there if is_refused else [])
    _report([(request, full.about(request.ids)) for request in decided])
    return [others] if is_refused else [others, there[1:], there[:1]]


def _report(outcomes: list[Outcome]) -> None:
    """Resolve the futures, with one call per loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome[0].loop, []).append(outcome)
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, mine)
        except RuntimeError:
            logger.debug("an event loop was closed while it submitted %d tasks", len(mine))


def _resolve(outcomes: list[Outcome]) -> None:
    for request, error in outcomes:
        if request.future.done():
            continue
        if error is None:
            request.future.set_result(None)
        else:
            request.future.set_exception(error)


pusher = PerProcess(Pusher)
"""Returns the pusher of this process."""
