"""Pushing for coroutines: one thread a process pushes what event loops hand over, many messages at once."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from time import monotonic

from taskapp.engine.producer import PUSHED_AT_ONCE, PUSHED_BYTES_AT_ONCE, Message, Producer
from taskapp.errors import NotQueued, PushError

logger = logging.getLogger(__name__)


LEAST_SECONDS = 0.1
"""An attempt with less time than this is not begun."""


class _PushRequest:
    """What one coroutine hands over: pushed together, and waited for."""

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
        """Say whether it is the caller's to push, or to withdraw: only the first to ask gets it."""
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True

    def put_back(self) -> bool:
        """Let it be taken again; say whether anybody still waits for it."""
        self._ticket.append(None)
        return not self.future.cancelled()

    def has_time(self) -> bool:
        """Say whether another attempt may come in time."""
        return monotonic() + LEAST_SECONDS < self.deadline


class Pusher:
    """Pushes parcels in the order they come; says to each what became of it."""

    def __init__(self) -> None:
        self._parcels: SimpleQueue[_PushRequest] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    async def push(self, producer: Producer, messages: Sequence[Message], deadline_seconds: float) -> None:
        """Push ``messages``, as ``Producer.push`` does, without blocking the event loop.

        Cancelled before its turn has come, nothing is queued; later, it may be.

        Raises:
            NotQueued, SubmitOutcomeUnknown, BrokerFull: See ``Producer.push``.
        """
        parcel = _PushRequest(producer, messages, monotonic() + deadline_seconds)
        if self._thread is None:
            self._start()
        self._parcels.put(parcel)
        try:
            await parcel.future
        except asyncio.CancelledError:
            parcel.take()
            raise

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="taskapp-pusher", daemon=True)
                self._thread.start()

    # --- on the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        taken: list[_PushRequest] = []
        while True:
            if not taken:
                taken.append(self._parcels.get())
            self._take_more(taken)
            batch = [parcel for parcel in taken if parcel.producer is taken[0].producer]
            rest = [parcel for parcel in taken if parcel.producer is not taken[0].producer]
            taken = self._push(batch) + rest

    def _take_more(self, taken: list[_PushRequest]) -> None:
        """Add what else waits, as much as goes into one push."""
        count, size = sum(len(parcel.messages) for parcel in taken), sum(parcel.size for parcel in taken)
        while count < PUSHED_AT_ONCE and size < PUSHED_BYTES_AT_ONCE:
            try:
                taken.append(self._parcels.get_nowait())
            except Empty:
                return
            count, size = count + len(taken[-1].messages), size + taken[-1].size

    @staticmethod
    def _push(batch: list[_PushRequest]) -> list[_PushRequest]:
        """Push ``batch`` and say what became of it; return those that are to be tried again."""
        mine = [parcel for parcel in batch if parcel.take()]
        messages = [message for parcel in mine for message in parcel.messages]
        if not messages:
            return []
        try:
            mine[0].producer.push(messages, deadline=min(parcel.deadline for parcel in mine))
        except NotQueued as error:
            # Whoever came later has more time.
            late = [parcel for parcel in mine if parcel.has_time() and error.about(parcel.ids)]
            _tell([(parcel, error.about(parcel.ids)) for parcel in mine if parcel not in late])
            return [parcel for parcel in late if parcel.put_back()]
        except PushError as error:
            _tell([(parcel, error.about(parcel.ids)) for parcel in mine])
        except BaseException as error:  # noqa: BLE001 - said to who waits; the thread serves others, too
            _tell([(parcel, error) for parcel in mine])
        else:
            _tell([(parcel, None) for parcel in mine])
        return []


Outcome = tuple[_PushRequest, BaseException | None]


def _tell(outcomes: list[Outcome]) -> None:
    """Resolve the futures: of each loop in one call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome[0].loop, []).append(outcome)
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, mine)
        except RuntimeError:
            logger.debug("an event loop was closed while it submitted %d tasks", len(mine))


def _resolve(outcomes: list[Outcome]) -> None:
    for parcel, error in outcomes:
        if parcel.future.done():
            continue
        if error is None:
            parcel.future.set_result(None)
        else:
            parcel.future.set_exception(error)


_pusher: Pusher | None = None


def pusher() -> Pusher:
    """Return this process's pusher."""
    global _pusher
    _pusher = _pusher or Pusher()
    return _pusher


def _leave_to_parent() -> None:
    global _pusher
    _pusher = None


os.register_at_fork(after_in_child=_leave_to_parent)
