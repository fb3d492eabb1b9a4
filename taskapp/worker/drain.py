"""Shutdown of a node within its drain deadline, whatever happens.

    stop signal ─► stop claiming, requeue unstarted tasks, let running tasks continue
                     ├─ nothing runs ──────► Celery shuts down, with a short timeout
                     ├─ deadline reached ──► requeue running tasks and exit
                     └─ second signal ─────► the same, at once

The main thread may be stuck in a task, a join or a broken connection at any point. So a separate
thread watches the shutdown; it requeues the tasks and exits the process if the main thread has not.
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

from taskapp.background import start_native_thread, this_process
from taskapp.engine import runtime
from taskapp.engine.suspects import NOBODY, Suspects
from taskapp.logs.writer import write_logs
from taskapp.worker.process.running import running_in, runs_something
from taskapp.worker.process.stop_signals import child_of_ours

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
IDLE_SECONDS = 2.0
"""How long Celery may take to shut down once nothing runs."""
GIVING_BACK_SECONDS = 3.0
"""How long requeueing may take; after that, the lease has to expire."""
FAILING_SECONDS = 1.0
"""How long a node may take at its end to fail the tasks it has buried; other nodes do so after a lease."""
CLOSING_SECONDS = 0.3
"""How long ending an empty lease may take."""
LATE_NEWS_SECONDS = 0.5
"""Minimum time that a node stopped by a pool child waits to learn which task that child had started."""
STOPPING_SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT")
AT_ONCE = ("SIGQUIT", "SIGTERM") if REMAP_SIGTERM == "SIGQUIT" else ("SIGQUIT",)
"""Stop signals that leave running tasks no time."""


class Drain:
    """Makes sure that a worker ends in time."""

    def __init__(self, worker: Any, drain_seconds: float, *, ends_process: bool = True) -> None:
        """Create a drain that does nothing until ``begin``.

        Args:
            worker: Celery's ``WorkController``.
            drain_seconds: How long running tasks may continue.
            ends_process: Whether the process is the worker's, and ends at the deadline. A worker that runs on a thread
                of a test is stopped by that test.
        """
        self._worker = worker
        self._ends_process = ends_process
        self._drain_seconds = drain_seconds
        self._second_signal: SimpleQueue[None] = SimpleQueue()
        self._process = this_process()
        self._exit_code = 0
        self._suspects: Suspects = NOBODY
        self._blamed: tuple[int | None, float] | None = None
        """The process that made this node end (id of a pool child, ``None`` for this one), and when (Unix seconds)."""
        self.ends_at = 0.0
        """Deadline (monotonic) after which running tasks are requeued; 0 if not draining."""
        self.on_begin: Callable[[], None] = lambda: None
        """Called once when draining starts, perhaps in a signal handler, so it must take no lock."""

    def begin(self, exit_code: int = 0, *, at_once: bool = False) -> None:
        """Start the drain; only the first call has an effect. May be called in signal handlers.

        Args:
            exit_code: Exit code if the watching thread has to end the process.
            at_once: Leave running tasks no time.
        """
        if self.ends_at or this_process() is not self._process:
            return
        self._exit_code = exit_code
        self.ends_at = monotonic() + (0.0 if at_once else self._drain_seconds)
        self.on_begin()
        if self._ends_process:
            start_native_thread(self._watch, name="drain")

    def blame(self, child: int | None = None) -> None:
        """Suspect the tasks now running in a pool child, or in this process if ``None``, of making the node end."""
        if not self.ends_at and not self._suspects.tags:
            self._blamed = child, time()
            self.find_suspects()

    def find_suspects(self) -> Suspects:
        """Return the suspected tasks, if any. Thread-safe.

        A later call may return more: a stop signal may arrive before the reports of tasks that children and threads
        have just started.
        """
        if self._blamed is not None:
            tags = self._suspects.tags | running_in(*self._blamed)
            # A task that was running alone is the cause, even if others have ended since.
            self._suspects = Suspects(tags, "crashed" if len(tags) == 1 else "neighbour")
        return self._suspects

    def on_sender(self, sender: int | None) -> bool:
        """If a process of this node sent the stop signal, suspect its tasks; return ``True``, to obey the signal."""
        if sender and (child := child_of_ours(sender)) is not None:
            children: tuple[int, ...] = getattr(self._worker.pool, "child_pids", tuple)()
            self.blame(child if child in children else None)
        return True

    def on_signal(self, exitcode: int = 0, sig: str = "", **_: Any) -> None:
        """Handle the first stop signal; any second stop signal ends the drain at once."""
        self.begin(exitcode, at_once=sig in AT_ONCE)
        for name in STOPPING_SIGNALS:
            platforms.signals[name] = self._on_second_signal

    def _on_second_signal(self, *_: Any) -> None:
        if this_process() is self._process:
            self._second_signal.put(None)

    # --- the watching thread ------------------------------------------------------------------

    def _watch(self) -> None:
        idle_since, news_until = 0.0, monotonic() + LATE_NEWS_SECONDS
        suspected = 0
        while (now := monotonic()) < self.ends_at or (now < news_until and self._awaits_news()):
            if (found := len(self.find_suspects().tags)) > suspected:
                suspected = found
                logger.warning(
                    "one of the %d running tasks seems to have made this node stop; those that do not finish in time "
                    "are requeued as after a crash", found, extra={"action": "ends_by_itself"},
                )  # fmt: skip
            with contextlib.suppress(Empty):
                self._second_signal.get(timeout=LOOK_SECONDS)
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
        """Return whether a child is to blame whose task is not known yet."""
        return self._blamed is not None and self._blamed[0] is not None and not self._suspects.tags

    def _wake_loop(self) -> None:
        """Wake a sleeping loop, so that it notices that nothing runs any more."""
        if (hub := self._worker.hub) is not None:
            hub.call_soon(int)

    def _end(self) -> None:
        done: SimpleQueue[None] = SimpleQueue()

        def give_back() -> None:
            # On a separate thread, so that the process ends even if this gets stuck.
            try:
                if runs_something():
                    logger.warning("drain deadline reached: returning unfinished tasks to their queues")
                self._give_back()
            finally:
                done.put(None)

        patience_seconds = GIVING_BACK_SECONDS if runs_something() else CLOSING_SECONDS
        start_native_thread(give_back, name="give-back")
        with contextlib.suppress(Empty):
            done.get(timeout=patience_seconds)
        write_logs(0.0)
        os._exit(self._exit_code)

    def _give_back(self) -> None:
        runtime.leave()
        suspects = self.find_suspects()
        pool = self._worker.pool
        if (kill := getattr(pool, "kill_children", None)) is not None:
            kill()
        runtime.close_nodes(reads=False, suspects=suspects)
        self._worker.failer.finish(FAILING_SECONDS)
        if self._worker.pidlock:
            self._worker.pidlock.release()
        write_logs()
        sys.stdout.flush()
        sys.stderr.flush()
