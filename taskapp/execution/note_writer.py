"""Writes the notes of running tasks to Redis from its own thread, so that tasks never wait for it.

    progress(), log lines, retries ──► buffered here ──► in batches, a few times per second ──► Redis

Between two writes, new progress replaces older progress, and log lines accumulate. While the server is
unreachable, the latest notes are kept, within limits. Ends of runs that settle no claim are counted here, too.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Any

from celery.app import app_or_default
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.background import LazyThread, PerProcess
from taskapp.engine.counters import CountedRun, as_text
from taskapp.engine.runtime import role
from taskapp.engine.settlement import EndOfTask
from taskapp.engine.task_notes import (
    NOTE_HISTORY,
    NOTE_LOG_LINE,
    NOTE_PROGRESS,
    NOTE_RETRY,
    NOTE_RUN,
    NOTE_TASK_TYPE,
    Notes,
    Step,
)
from taskapp.errors import BrokerNotFound
from taskapp.redis.link import NotSent, OutcomeUnknown
from taskapp.redis.trouble import ServerHealth, broker, result_server
from taskapp.settings import get_settings
from taskapp.transport.transport import is_over_redis

logger = logging.getLogger(__name__)

WRITE_SECONDS = 0.25
AGAIN_SECONDS = 0.5
STEPS_AT_ONCE = 200
"""Maximum number of notes in one script call, which takes the server under a millisecond unless lines are long."""
LINES_MOST = 5_000
"""Maximum number of unwritten lines of all tasks of a process; more are dropped and counted."""
RETRIES_MOST = 10_000
RUNS_MOST = 100_000
"""Maximum number of ended runs kept until they are counted."""


class NoteWriter:
    """Buffers and writes the notes of this process. Thread-safe.

    Args:
        open_notes: Opens the store to write to; returns ``None`` if there is no Redis.
        lines_most: Maximum number of lines kept of each task; older ones are dropped.
        server: The server of the store, to report its outages.
    """

    def __init__(
        self, open_notes: Callable[[], Notes | None], lines_most: int, server: ServerHealth = result_server
    ) -> None:  # fmt: skip
        self._server = server
        self._open_notes = open_notes
        self._lines_most = lines_most
        self._lock = threading.Lock()
        self._has_work = threading.Event()
        self._is_urgent = threading.Event()
        self._thread = LazyThread(self._run, "note-writer")
        self._progress: dict[str, bytes] = {}
        self._retries: deque[Step] = deque(maxlen=RETRIES_MOST)
        self._runs: deque[Step] = deque(maxlen=RUNS_MOST)
        self._ends: deque[Step] = deque(maxlen=RUNS_MOST)
        self._lines: dict[str, deque[bytes]] = {}
        self._line_count = self._dropped = 0
        self._is_idle = True
        self._has_announced = False
        self._name, self._number = uuid.uuid4().hex, 0
        self._has_nowhere_to_write = False

    def progress(self, task_id: str, text: bytes) -> None:
        """Write the progress of a task, replacing its earlier progress."""
        if self._has_nowhere_to_write:
            return
        with self._lock:
            self._progress[task_id] = text
        self._wake()

    def retry(self, task_id: str, text: bytes) -> None:
        """Write that a run asked for a retry."""
        if self._has_nowhere_to_write:
            return
        with self._lock:
            self._retries.append((NOTE_RETRY, task_id, text))
        self._wake()

    def count(self, queue: str, run: CountedRun) -> None:
        """Count the end of a run that settles no claim."""
        if self._has_nowhere_to_write:
            return
        with self._lock:
            self._runs.append((NOTE_RUN, queue, as_text(run)))
        self._wake()

    def end(self, end: EndOfTask) -> None:
        """Write the history record of a task that settles no claim; a node that is killed loses unwritten records."""
        if self._has_nowhere_to_write:
            return
        with self._lock:
            self._ends.append((NOTE_HISTORY, str(end.most), end.packed))
        self._wake()

    def line(self, task_id: str, text: bytes) -> None:
        """Write a log line."""
        with self._lock:
            if self._has_nowhere_to_write:
                return
            lines = self._lines.get(task_id)
            if self._line_count >= LINES_MOST:
                self._dropped += 1
                if not lines:
                    return
                # The latest lines are the useful ones.
                lines.popleft()
                self._line_count -= 1
            if lines is None:
                lines = self._lines[task_id] = deque(maxlen=self._lines_most)
            self._line_count += len(lines) < self._lines_most
            lines.append(text)
        self._wake()

    def flush(self, within_seconds: float) -> bool:
        """Wait up to ``within_seconds`` until everything is written; return whether it is."""
        deadline = monotonic() + within_seconds
        while not self._is_idle or self._has_work.is_set():
            if monotonic() > deadline:
                return False
            self._is_urgent.set()
            sleep(0.005)
        return True

    def _wake(self) -> None:
        if self._has_work.is_set():
            return
        self._has_work.set()
        self._thread.start()

    # --- on the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            notes = self._find_notes()
        except Exception:  # nothing restarts this thread
            logger.exception("notes on tasks are not kept: could not open their store")
            self._give_up()
            return
        if notes is None:
            self._warn_of_no_redis()
            self._give_up()
            return
        while True:
            self._has_work.wait()
            self._is_idle = False
            self._has_work.clear()
            self._write_all(notes, self._taken())
            self._is_idle = True
            self._is_urgent.wait(WRITE_SECONDS)
            self._is_urgent.clear()

    def _find_notes(self) -> Notes | None:
        """Open the store, waiting until its server is reachable; return ``None`` if there is no Redis."""
        while True:
            try:
                return self._open_notes()
            except (RedisError, OSError, OperationalError, BrokerNotFound) as error:
                logger.debug("could not connect to write notes on tasks: %s; retrying", error)
                sleep(AGAIN_SECONDS)

    def _warn_of_no_redis(self) -> None:
        if self._ends:
            logger.warning(
                "finished tasks are not recorded: neither broker nor result backend is Redis; "
                "set TASKAPP_RESULT_URL to a Redis"
            )
        if self._progress:
            logger.warning(
                "progress of tasks is not kept: neither broker nor result backend is Redis; "
                "set TASKAPP_RESULT_URL to a Redis"
            )

    def _give_up(self) -> None:
        """Drop all buffered notes, and all later ones."""
        self._has_nowhere_to_write = True
        self._taken()
        self._has_work.clear()

    def _taken(self) -> list[Step]:
        """Empty the buffers and return their notes."""
        with self._lock:
            progress, self._progress = self._progress, {}
            lines, self._lines, self._line_count = self._lines, {}, 0
            retries, self._retries = self._retries, deque(maxlen=RETRIES_MOST)
            runs, self._runs = self._runs, deque(maxlen=RUNS_MOST)
            ends, self._ends = self._ends, deque(maxlen=RUNS_MOST)
            dropped, self._dropped = self._dropped, 0
        if dropped:
            logger.warning("dropped %d log lines of tasks: too many at once", dropped)
        steps: list[Step] = [*(self._types() if runs else ()), *runs, *ends, *retries]
        for task_id, texts in lines.items():
            steps += [(NOTE_LOG_LINE, task_id, text) for text in texts]
        steps += [(NOTE_PROGRESS, task_id, text) for task_id, text in progress.items()]
        return steps

    def _types(self) -> list[Step]:
        """Return the task types of this node, which runs are counted by, unless the server already has them."""
        was, self._has_announced = self._has_announced, True
        return [] if was else [(NOTE_TASK_TYPE, name, b"") for name in role.types()]

    def _write_all(self, notes: Notes, steps: Sequence[Step], at_once: int = STEPS_AT_ONCE) -> None:
        for start in range(0, len(steps), at_once):
            self._number += 1
            batch = steps[start : start + at_once]
            try:
                self._write(notes, batch)
            except (RedisError, UnicodeEncodeError) as error:
                if isinstance(error, UnicodeEncodeError) and at_once > 1:
                    self._write_all(notes, batch, 1)  # one of the ids cannot be encoded
                    continue
                # For example, Redis is full: notes are not worth stopping for.
                logger.warning("%d notes on tasks were refused: %s", len(batch), error)
            except Exception:  # other notes follow, and nothing restarts this thread
                logger.exception("could not write %d notes on tasks", len(batch))

    def _write(self, notes: Notes, batch: Sequence[Step]) -> None:
        """Write ``batch`` once, retrying until the server is reachable."""
        was_away = False
        while True:
            try:
                notes.write(self._name, self._number, batch, self._lines_most)
            except (NotSent, OutcomeUnknown) as error:
                was_away = True
                self._server.failed(self, error)
                sleep(AGAIN_SECONDS)
            else:
                if was_away:
                    self._server.works(self)
                    # It may be another server, or an empty one.
                    self._has_announced = False
                return


def _new_writer() -> NoteWriter:
    app: Any = app_or_default()
    # A plain Celery app has no store for notes.
    return NoteWriter(
        getattr(app, "open_notes", lambda: None), max(get_settings().task_log_lines, 1),
        broker if is_over_redis(app.conf.broker_url) else result_server,
    )  # fmt: skip


note_writer = PerProcess(_new_writer)
"""Returns the note writer of this process."""


def finish_writing(within_seconds: float = 1.0) -> None:
    """Write the remaining notes, if this process has a note writer; wait up to ``within_seconds``."""
    if (writer := note_writer.value) is not None:
        writer.flush(within_seconds)
