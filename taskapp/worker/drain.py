"""The end of a node, inside its grace whatever happens.

    told to stop ─► claims no more, gives back what has not begun, lets the rest run on
                      ├─ nothing left ─► Celery ends as it likes, but soon
                      ├─ the deadline ──► gives back what runs, and is gone
                      └─ told again ────► the same, at once

The main thread may sit in a task, in a join or in a broken connection at any of these moments. So
the end is watched over by a thread of its own, which gives back and exits where the main thread
has not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from _queue import Empty, SimpleQueue  # the native one: gevent's would block its hub
from collections.abc import Callable
from time import monotonic, time
from typing import Any

from billiard.common import REMAP_SIGTERM
from celery import platforms

from taskapp.engine import runtime
from taskapp.engine.heartbeat import native_thread
from taskapp.engine.suspects import NOBODY, Suspects
from taskapp.worker.process.running import running_in, runs_something
from taskapp.worker.process.stop_signals import child_of_ours

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
IDLE_SECONDS = 2.0
"""How long Celery may take to end once nothing runs any more."""
GIVING_BACK_SECONDS = 3.0
"""How long giving back may take; then the lease has to end by itself."""
TELLING_SECONDS = 1.0
"""How long a node that ends may take to fail the tasks it has buried at the end; others do it after a lease."""
SAYING_SO_SECONDS = 0.3
"""How long ending an empty lease may take."""
LATE_NEWS_SECONDS = 0.5
"""How long a node that a child of its pool has ended waits, at the least, to hear what that child has begun."""
STOPPING_SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT")
AT_ONCE = ("SIGQUIT", "SIGTERM") if REMAP_SIGTERM == "SIGQUIT" else ("SIGQUIT",)
"""Those of them that leave no time to what runs."""


class Drain:
    """Sees to it that one worker ends in time."""

    def __init__(self, worker: Any, drain_seconds: float) -> None:
        """Make one that does nothing until ``begin``.

        Args:
            worker: Celery's ``WorkController``.
            drain_seconds: How long what runs may run on.
        """
        self._worker = worker
        self._drain_seconds = drain_seconds
        self._told_again: SimpleQueue[None] = SimpleQueue()
        self._pid = os.getpid()
        self._exit_code = 0
        self._suspects: Suspects = NOBODY
        self._blamed: tuple[int | None, float] | None = None
        """In which child of the pool it is, or ``None`` for this process, why this node ends; and since when (Unix)."""
        self.ends_at = 0.0
        """When giving back begins at the latest; 0: it is not draining."""
        self.on_begin: Callable[[], None] = lambda: None
        """Called once when draining begins; perhaps inside a signal handler, so it takes no lock."""

    def begin(self, exit_code: int = 0, *, at_once: bool = False) -> None:
        """Count the time from now on; only the first call does. Signal handlers may call it.

        Args:
            exit_code: What the process ends with if it is this thread that ends it.
            at_once: Leave no time to what runs.
        """
        if self.ends_at or os.getpid() != self._pid:
            return
        self._exit_code = exit_code
        self.ends_at = monotonic() + (0.0 if at_once else self._drain_seconds)
        self.on_begin()
        native_thread(self._watch)

    def blame(self, child: int | None = None) -> None:
        """Suspect what runs now in a child process of the pool, or in this process: it is why the node ends."""
        if not self.ends_at and not self._suspects.tags:
            self._blamed = child, time()
            self.find_suspects()

    def find_suspects(self) -> Suspects:
        """Return what ran when this node came to end by itself, if it does. Any thread may ask.

        A signal is quicker than what children and threads say of the tasks they begin: asked later, it may be more.
        """
        if self._blamed is not None:
            tags = self._suspects.tags | running_in(*self._blamed)
            # A task that ran alone then is the culprit, even if others have ended since.
            self._suspects = Suspects(tags, "crashed" if len(tags) == 1 else "neighbour")
        return self._suspects

    def on_sender(self, sender: int | None) -> bool:
        """Suspect what runs in the process that sent the signal to stop, if it is one of this node; heed the signal."""
        if sender and (child := child_of_ours(sender)) is not None:
            children: tuple[int, ...] = getattr(self._worker.pool, "child_pids", tuple)()
            self.blame(child if child in children else None)
        return True

    def on_signal(self, exitcode: int = 0, sig: str = "", **_: Any) -> None:
        """Take note of a first signal to stop; a second one, of whatever kind, is final."""
        self.begin(exitcode, at_once=sig in AT_ONCE)
        for name in STOPPING_SIGNALS:
            platforms.signals[name] = self._on_second_signal

    def _on_second_signal(self, *_: Any) -> None:
        if os.getpid() == self._pid:
            self._told_again.put(None)

    # --- watching over the end ----------------------------------------------------------------

    def _watch(self) -> None:
        idle_since, news_until = 0.0, monotonic() + LATE_NEWS_SECONDS
        suspected = 0
        while (now := monotonic()) < self.ends_at or (now < news_until and self._awaits_news()):
            if (found := len(self.find_suspects().tags)) > suspected:
                suspected = found
                logger.warning(
                    "one of the %d tasks that run here seems to be why this node ends; those that do not end before it "
                    "are given back as after a crash", found, extra={"action": "ends_by_itself"},
                )  # fmt: skip
            with contextlib.suppress(Empty):
                self._told_again.get(timeout=LOOK_SECONDS)
                break
            if runs_something():
                idle_since = 0.0
                continue
            idle_since = idle_since or now
            if now > idle_since + IDLE_SECONDS:
                break
            self._wake_loop()
        self._end()

    def _awaits_news(self) -> bool:
        """Return whether it was a child whose task is not known yet."""
        return self._blamed is not None and self._blamed[0] is not None and not self._suspects.tags

    def _wake_loop(self) -> None:
        """Let a loop that sleeps see that there is nothing left to wait for."""
        if (hub := self._worker.hub) is not None:
            hub.call_soon(int)

    def _end(self) -> None:
        done: SimpleQueue[None] = SimpleQueue()

        def give_back() -> None:
            # Beside this thread: whatever it gets stuck in, the process ends.
            try:
                if runs_something():
                    logger.warning("what still runs is cut off and given back: others run it again")
                self._give_back()
            finally:
                done.put(None)

        patience_seconds = GIVING_BACK_SECONDS if runs_something() else SAYING_SO_SECONDS
        native_thread(give_back)
        with contextlib.suppress(Empty):
            done.get(timeout=patience_seconds)
        os._exit(self._exit_code)

    def _give_back(self) -> None:
        runtime.leave()
        suspects = self.find_suspects()
        pool = self._worker.pool
        if (kill := getattr(pool, "kill_children", None)) is not None:
            kill()
        runtime.close_nodes(reads=False, suspects=suspects)
        self._worker.teller.finish(TELLING_SECONDS)
        if self._worker.pidlock:
            self._worker.pidlock.release()
        sys.stdout.flush()
        sys.stderr.flush()
