"""One writer for each log of a process: lines are written in order, whole, many in one system call.

    add() ──► kept, not even formatted ──┐
                                         ├──► formatted once ──► the sink, as much as it accepts
    write() ─► kept, and written now ────┘

Each call of ``write`` writes all that was added before it; there is no hand-over to a thread. A reader that has
stopped, a full disk or a closed pipe block no caller: what cannot be written is kept up to a limit, then dropped and
counted. A background thread writes lines that were only added, and retries what could not be written.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from typing import Any
from weakref import WeakSet

from taskapp.background import around_forks, in_child, start_thread
from taskapp.logs.sink import Sink, StreamSink

LATEST_SECONDS = 0.02
"""How long a line that was added may stay unwritten."""
KEPT_LINES = 20_000
"""How many unformatted lines are kept; more are dropped."""
KEPT_BYTES = 4 * 1024 * 1024
"""How much is kept while the sink accepts nothing; more is dropped."""
AT_ONCE_BYTES = 256 * 1024
AGAIN_SECONDS = 0.5
PATIENCE_SECONDS = 1.0
"""How long to wait for another thread that writes, or on exit for a reader that reads nothing."""

Line = bytes | tuple[Callable[..., bytes], Any]
"""A line with its terminator, or a function that returns one, with its argument."""

_writers: WeakSet[LogWriter] = WeakSet()


class LogWriter:
    """Writes the lines of one log. Any thread may call it, and so may signal handlers.

    Args:
        sink: Where they go.
        shown: Returns a warning of the writer as a line.
    """

    def __init__(self, sink: Sink, shown: Callable[[str], bytes] | None = None) -> None:
        self.sink = sink
        self.shown = shown or _plain
        self._start_over()
        _writers.add(self)

    def _start_over(self) -> None:
        self._lines: deque[Line] = deque()
        self._rest = bytearray()
        """Formatted, but not accepted by the sink yet."""
        self._lock = threading.Lock()
        self._held: threading.Lock | None = None
        self._owner = 0
        self._is_held = self._is_stuck = False
        self._dropped = 0
        self._trouble = ""
        self._again_at = 0.0
        self._work = threading.Event()
        self._is_watched = False
        self._thread: threading.Thread | None = None

    @property
    def has_unwritten(self) -> bool:
        """Whether there are lines that are not written yet."""
        return bool(self._lines or self._rest)

    def add(self, line: Line) -> None:
        """Keep ``line`` to write it with later ones, within ``LATEST_SECONDS``."""
        if len(self._lines) >= KEPT_LINES:
            self._dropped += 1
            return
        self._lines.append(line)
        if not self._is_watched:
            self._watch()

    def write(self, line: Line) -> None:
        """Write ``line``, after the lines added before it."""
        if len(self._lines) >= KEPT_LINES:
            self._dropped += 1
            return
        self._lines.append(line)
        self.drain()

    def drain(self) -> None:
        """Write what the sink accepts without waiting."""
        me = get_ident()
        if self._owner == me:
            return  # a signal handler, or a line whose formatting logs: the outer call writes it
        if not self._lock.acquire(timeout=0 if self._is_held else PATIENCE_SECONDS):
            self._is_held = True  # a file system that hangs blocks one thread, not all
            if not self._owner:  # a time limit interrupted its owner before it could release it
                self._lock = threading.Lock()
            return
        self._owner = me
        try:
            self._is_held = False
            while (self._lines or self._rest or self._dropped) and self._write_some():
                pass
        finally:
            self._owner = 0
            self._lock.release()
        if self._rest and not self._is_watched:
            self._watch()

    def flush(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Write everything; wait for the reader while it keeps reading."""
        self.drain()
        last_at = time.monotonic()
        while (left := len(self._rest)) and time.monotonic() - last_at < patience_seconds:
            if self._trouble:
                return
            self.sink.wait(0.1)
            self.drain()
            if len(self._rest) != left:
                last_at = time.monotonic()

    # --- forks: a child must not write its parent's lines again, nor inherit a locked lock -----------

    def before_fork(self) -> None:
        """Write everything, and lock until the fork is over."""
        self.drain()
        if self._owner != get_ident() and self._lock.acquire(timeout=PATIENCE_SECONDS):
            self._held = self._lock

    def in_parent(self) -> None:
        """Unlock."""
        held, self._held = self._held, None
        if held is not None:
            held.release()

    def in_child(self) -> None:
        """Start over in a new process."""
        self._start_over()

    # --- with the lock ----------------------------------------------------------------------------

    def _write_some(self) -> bool:
        """Write some of what is kept; return whether to continue."""
        try:
            self._format()
            if not self._rest or time.monotonic() < self._again_at:
                return False
            with memoryview(self._rest) as data:
                done = self.sink.write(data)
            del self._rest[:done]
        except (OSError, ValueError, MemoryError) as error:
            self._is_stuck = True
            self._refused(error)
            return False
        self._is_stuck = not done
        if done:
            self._trouble = ""
        return not self._is_stuck

    def _format(self) -> None:
        """Format added lines, within limits."""
        lines, rest = self._lines, self._rest
        if self._is_stuck and len(rest) >= KEPT_BYTES:
            self._dropped += len(lines)
            lines.clear()
            return
        if self._dropped and not self._is_stuck:
            self._say_dropped()
        limit = KEPT_BYTES if self._is_stuck else AT_ONCE_BYTES
        while lines and len(rest) < limit:
            line = lines[0]
            try:
                made = line if isinstance(line, bytes) else line[0](line[1])
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - such a line must not block the others
                made = self.shown(f"a log line could not be formatted: {type(error).__name__}")
            rest += made
            lines.popleft()

    def _say_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        self._rest += self.shown(f"{dropped:,} log lines were dropped here: they were not read in time")

    def _refused(self, error: Exception) -> None:
        """Keep what could not be written, retry later, and report it once on stderr."""
        self._again_at = time.monotonic() + AGAIN_SECONDS
        if self._trouble:
            return
        self._trouble = str(error) or type(error).__name__
        text = f"{self.sink.name} cannot be written: {self._trouble}; keeping up to 4 MiB of lines, trying again"
        with suppress(OSError, ValueError, AttributeError):
            StreamSink(sys.__stderr__.fileno).write(memoryview(self.shown(text)))  # type: ignore[union-attr]

    # --- the thread -------------------------------------------------------------------------------

    def _watch(self) -> None:
        self._is_watched = True
        if self._thread is None or not self._thread.is_alive():
            try:
                self._thread = start_thread(self._run, name="log")
            except RuntimeError:  # the interpreter ends, or there are too many threads
                self._is_watched, self._thread = False, None
                self.drain()
                return
        self._work.set()

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            while self.has_unwritten:
                if self._rest and not self._trouble:
                    self.sink.wait(AGAIN_SECONDS)
                else:
                    time.sleep(AGAIN_SECONDS if self._trouble else LATEST_SECONDS)
                self.drain()
            self._is_watched = False
            if self.has_unwritten:
                self._is_watched = True
                self._work.set()


def _plain(text: str) -> bytes:
    return f"{text}\n".encode()


def write_logs(patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Write everything that the logs of this process keep, before it ends; wait for readers while they keep reading."""
    for writer in list(_writers):
        writer.flush(patience_seconds)


def _each(call: Callable[[LogWriter], None]) -> Callable[[], None]:
    def call_each() -> None:
        for writer in list(_writers):
            call(writer)

    return call_each


around_forks(_each(LogWriter.before_fork), _each(LogWriter.in_parent))
in_child(_each(LogWriter.in_child))
