"""Celery's event loop with an asyncio loop inside, which runs while Celery's waits.

kombu's hub keeps its poller, timers and callbacks; only its waiting is replaced. The asyncio loop watches
the descriptor of kombu's poller and runs coroutines until that is readable, a timer of the hub is due, or
the hub is asked to take a turn. So the consumer, its timers, remote control and coroutines share one
thread, and nothing is handed over between threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from time import monotonic
from typing import Any

from celery.utils.log import get_logger
from kombu.asynchronous.hub import Hub, set_event_loop
from kombu.utils.eventio import READ, poll

from taskapp.celery_internals import poller_descriptor
from taskapp.execution import forked
from taskapp.execution.side_loop import log_exit
from taskapp.settings import get_settings
from taskapp.worker.pool.spare_descriptors import SpareDescriptors

logger = get_logger(__name__)

_Hub: Any = Hub  # the package has no types

LONGEST_TURN_SECONDS = 1.0
"""Maximum time between two turns of the hub, which show a watchdog that the loop is not blocked."""
UVLOOP_DESCRIPTORS = 2
"""How many descriptors uvloop opens each time it runs."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an asyncio loop: uvloop's if it is installed and the settings allow it, otherwise Python's own."""
    if get_settings().event_loop == "uvloop":
        with suppress(ImportError):
            import uvloop

            return uvloop.new_event_loop()
    return asyncio.new_event_loop()


class LoopPoller:
    """Wraps kombu's poller and runs an asyncio loop while it waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inner = poll()
        self.register = self._inner.register
        self.unregister = self._inner.unregister
        self._descriptor = poller_descriptor(self._inner)
        loop.add_reader(self._descriptor, self.stop)
        self._spare = SpareDescriptors(0 if isinstance(loop, asyncio.BaseEventLoop) else UVLOOP_DESCRIPTORS)
        self.turned_at = monotonic()
        """When the hub last had its turn (monotonic)."""
        self._is_stopping = False

    def poll(self, timeout: float | None) -> Any:
        """Run the asyncio loop for up to ``timeout`` seconds; return the events that kombu's poller has then."""
        loop = self._loop
        self.turned_at = monotonic()
        self._is_stopping = False
        timer = None
        if timeout and timeout > 0:
            timer = loop.call_later(min(timeout, LONGEST_TURN_SECONDS), self.stop)
        else:
            loop.call_soon(self.stop)
        try:
            self._spare.run(loop.run_forever)
        except (SystemExit, KeyboardInterrupt) as error:
            # The worker's own callbacks never raise through the loop, see ``_guarded``.
            log_exit(error)
        if timer is not None:
            timer.cancel()
        return self._inner.poll(0)

    def stop(self) -> None:
        """End the current wait once the callbacks that are ready now have run."""
        if not self._is_stopping:
            self._is_stopping = True
            self._loop.stop()

    def watch_again(self) -> bool | None:
        """See ``LoopHub.watch_again``; return whether it was watched, ``None`` if the loop does not tell."""
        was_watched: bool | None = self._loop.remove_reader(self._descriptor)  # uvloop's returns ``None``
        self._loop.add_reader(self._descriptor, self.stop)
        return was_watched

    def close(self) -> None:
        """Detach from the loop and close kombu's poller."""
        self._loop.remove_reader(self._descriptor)
        self._inner.close()
        self._spare.close()


class _Readers(dict[int, Any]):
    """The descriptors that the hub watches; always true, because coroutines need the poller to run.

    With an empty dict, for example while the broker is away, kombu's hub would sleep instead of calling its poller.
    """

    def __bool__(self) -> bool:
        return True


class LoopHub(_Hub):
    """kombu's hub around an asyncio loop, which lives as long as the hub."""

    def __init__(self, timer: Any = None) -> None:
        self.loop_of_tasks = new_event_loop()
        forked.guard(self.loop_of_tasks)
        self._consolidating: Callable[[Any], Any] | None = None
        self._soon: dict[Callable[[], None], None] = {}
        self._on_loop: dict[int, Callable[[], None]] = {}
        """Descriptor to callback, for those read on the loop itself."""
        self.on_free_slot: Callable[[], None] | None = None
        """Called soon after slots were freed, once for all slots freed together."""
        super().__init__(timer)
        self.readers = _Readers()

    @property
    def consolidate_callback(self) -> Callable[[Any], Any]:
        """Callback given the descriptors of child processes that accept work; the running loop reads it only once."""
        return lambda descriptors: self._consolidating and self._consolidating(descriptors)

    @consolidate_callback.setter
    def consolidate_callback(self, callback: Callable[[Any], Any] | None) -> None:
        self._consolidating = callback

    def _create_poller(self) -> None:
        self._poller = LoopPoller(self.loop_of_tasks)
        self._register_fd, self._unregister_fd = self._poller.register, self._poller.unregister
        if self._waker is not None:
            self._register_fd(self._waker.fileno(), READ)

    # --- on the asyncio loop itself, without a turn of the hub ------------------------------------------

    def read_on_loop(self, descriptor: int, read: Callable[[], None]) -> None:
        """Call ``read`` when ``descriptor`` is readable; its exceptions are raised in the hub."""
        self._on_loop[descriptor] = read
        self.loop_of_tasks.add_reader(descriptor, self._guarded, read)

    def forget_on_loop(self, descriptor: int) -> None:
        """Stop reading ``descriptor``."""
        self._on_loop.pop(descriptor, None)
        self.loop_of_tasks.remove_reader(descriptor)

    def watch_again(self) -> None:
        """Watch all descriptors as before: a task can remove or replace any reader of the loop that it runs on."""
        loop, were_watched = self.loop_of_tasks, [self._poller.watch_again()]
        for descriptor, read in self._on_loop.items():
            were_watched.append(loop.remove_reader(descriptor))
            loop.add_reader(descriptor, self._guarded, read)
        if False in were_watched:
            logger.warning("a task had removed readers of the event loop; the node has restored its own")

    def later_on_loop(self, seconds: float, call: Callable[[], None]) -> Any:
        """Call ``call`` in ``seconds``; return a handle with ``cancel``."""
        return self.loop_of_tasks.call_later(seconds, self._guarded, call)

    def soon_on_loop(self, call: Callable[[], None]) -> None:
        """Call ``call`` once after the callbacks that are ready now, however often it is requested until then."""
        if call not in self._soon:
            self._soon[call] = None
            self.loop_of_tasks.call_soon(self._call_pending)

    def _call_pending(self) -> None:
        calls, self._soon = self._soon, {}
        for call in calls:
            self._guarded(call)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - asyncio would only log it, but Celery must act on it
            self.call_soon(_raise, error)

    def free_slot(self) -> None:
        """Call ``on_free_slot`` soon, so that more tasks can be claimed."""
        if self.on_free_slot is not None:
            self.soon_on_loop(self.on_free_slot)

    # --- turns ------------------------------------------------------------------------------------------

    def take_turn(self) -> None:
        """End the hub's wait, so that its callbacks and timers run. Other threads use ``call_soon``."""
        if self.loop_of_tasks.is_running() and get_ident() == self._loop_thread:
            self._poller.stop()

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Any:
        """Call ``callback`` in the hub's next turn, which starts at once."""
        promise = super().call_soon(callback, *args)
        self.take_turn()
        return promise

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any:
        """Call ``callback`` in ``delay`` seconds, even if the hub is waiting for something later."""
        entry = super().call_later(delay, callback, *args)
        self.take_turn()
        return entry

    def reset(self) -> None:
        """Start afresh after a broken connection, and remain the current hub."""
        super().reset()
        set_event_loop(self)


def _raise(error: BaseException) -> None:
    raise error
