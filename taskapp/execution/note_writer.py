"""Writes down what running tasks say of themselves, on a thread of its own: who says something waits for nothing.

    progress(), log lines, retries ──► kept here ──► a few times a second, together ──► Redis

What is said between two writes replaces what was said before (progress), or joins it (lines). While the
server is away the latest of it is kept, within bounds. Ends of runs that settle no claim are counted here, too.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Any

from celery.app import app_or_default
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.engine.counters import CountedRun, as_text
from taskapp.engine.runtime import role
from taskapp.engine.settlement import EndOfTask
from taskapp.engine.task_notes import Notes, Step
from taskapp.errors import BrokerNotFound
from taskapp.redis.link import NotSent, OutcomeUnknown
from taskapp.settings import get_settings

logger = logging.getLogger(__name__)

WRITE_SECONDS = 0.25
AGAIN_SECONDS = 0.5
STEPS_AT_ONCE = 200
"""In one call of a script: under a millisecond of the server's time, but for long lines."""
LINES_MOST = 5_000
"""How many lines of all tasks of a process are kept until they are written; the rest is dropped, and counted."""
RETRIES_MOST = 10_000
RUNS_MOST = 100_000
"""How many ends of runs are kept until they are counted."""


class NoteWriter:
    """What one process has to write. Any thread may add.

    Args:
        open_notes: Opens what is written to; ``None``: there is no Redis to write to.
        lines_most: How many lines of a task are kept; those before are dropped.
    """

    def __init__(self, open_notes: Callable[[], Notes | None], lines_most: int) -> None:
        self._open_notes = open_notes
        self._lines_most = lines_most
        self._lock = threading.Lock()
        self._has_work = threading.Event()
        self._is_urgent = threading.Event()
        self._thread: threading.Thread | None = None
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
        """Write how far a task is, in the place of what was written before."""
        if self._has_nowhere_to_write:
            return
        with self._lock:
            self._progress[task_id] = text
        self._wake()

    def retry(self, task_id: str, text: bytes) -> None:
        """Write that a run asked for another."""
        if self._has_nowhere_to_write:
            return
        with self._lock:
            self._retries.append(("R", task_id, text))
        self._wake()

    def count(self, queue: str, run: CountedRun) -> None:
        """Count the end of a run that settles no claim."""
        if self._has_nowhere_to_write:
            return
        with self._lock:
            self._runs.append(("K", queue, as_text(run)))
        self._wake()

    def end(self, end: EndOfTask) -> None:
        """Tell of the end of a task that settles no claim; what a node that is killed had not written is lost."""
        if self._has_nowhere_to_write:
            return
        with self._lock:
            self._ends.append(("H", str(end.most), end.packed))
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
                # The last lines are those that are looked for.
                lines.popleft()
                self._line_count -= 1
            if lines is None:
                lines = self._lines[task_id] = deque(maxlen=self._lines_most)
            self._line_count += len(lines) < self._lines_most
            lines.append(text)
        self._wake()

    def flush(self, within_seconds: float) -> bool:
        """Wait until all is written; say whether that was so ``within_seconds``."""
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
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="taskapp-note-writer", daemon=True)
                    self._thread.start()

    # --- on the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            notes = self._find_notes()
        except Exception:  # nobody starts this thread again
            logger.exception("notes on tasks are not kept: what they are written to cannot be opened")
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
        """Open what is written to, as soon as its server is there."""
        while True:
            try:
                return self._open_notes()
            except (RedisError, OSError, OperationalError, BrokerNotFound) as error:
                logger.debug("notes on tasks have to wait: %s", error)
                sleep(AGAIN_SECONDS)

    def _warn_of_no_redis(self) -> None:
        if self._ends:
            logger.warning("finished tasks are not kept: neither tasks nor results use Redis; set TASKAPP_RESULT_URL")
        if self._progress:
            logger.warning(
                "the progress of tasks is not kept: neither tasks nor results use Redis; set TASKAPP_RESULT_URL to one"
            )

    def _give_up(self) -> None:
        """Drop what there is to write, and whatever comes."""
        self._has_nowhere_to_write = True
        self._taken()
        self._has_work.clear()

    def _taken(self) -> list[Step]:
        """Take over what there is to write."""
        with self._lock:
            progress, self._progress = self._progress, {}
            lines, self._lines, self._line_count = self._lines, {}, 0
            retries, self._retries = self._retries, deque(maxlen=RETRIES_MOST)
            runs, self._runs = self._runs, deque(maxlen=RUNS_MOST)
            ends, self._ends = self._ends, deque(maxlen=RUNS_MOST)
            dropped, self._dropped = self._dropped, 0
        if dropped:
            logger.warning("%d log lines of tasks were not kept: too many at once", dropped)
        steps: list[Step] = [*(self._types() if runs else ()), *runs, *ends, *retries]
        for task_id, texts in lines.items():
            steps += [("L", task_id, text) for text in texts]
        steps += [("P", task_id, text) for task_id, text in progress.items()]
        return steps

    def _types(self) -> list[Step]:
        """Return the task types of this node if the server was not told of them yet: runs are counted by these."""
        was, self._has_announced = self._has_announced, True
        return [] if was else [("T", name, b"") for name in role.types()]

    def _write_all(self, notes: Notes, steps: Sequence[Step], at_once: int = STEPS_AT_ONCE) -> None:
        for start in range(0, len(steps), at_once):
            self._number += 1
            batch = steps[start : start + at_once]
            try:
                self._write(notes, batch)
            except (RedisError, UnicodeEncodeError) as error:
                if isinstance(error, UnicodeEncodeError) and at_once > 1:
                    self._write_all(notes, batch, 1)  # an id that is no text, among others that are
                    continue
                # A full Redis, for example: what tasks say is not worth stopping for.
                logger.warning("%d notes on tasks were refused: %s", len(batch), error)
            except Exception:  # whatever is wrong with these, others follow, and nobody starts this thread again
                logger.exception("%d notes on tasks could not be written", len(batch))

    def _write(self, notes: Notes, batch: Sequence[Step]) -> None:
        """Write ``batch``, once; wait for a server that is away."""
        away_since = 0.0
        while True:
            try:
                notes.write(self._name, self._number, batch, self._lines_most)
            except (NotSent, OutcomeUnknown) as error:
                if not away_since:
                    logger.warning("notes on tasks cannot be written: %s; they are kept, trying again", error)
                away_since = away_since or monotonic()
                sleep(AGAIN_SECONDS)
            else:
                if away_since:
                    logger.info("notes on tasks are written again after %.1f s", monotonic() - away_since)
                    # Perhaps that is another server, or an empty one.
                    self._has_announced = False
                return


_note_writer: NoteWriter | None = None
_making = threading.Lock()


def note_writer() -> NoteWriter:
    """Return the note writer of this process."""
    global _note_writer
    if _note_writer is None:
        with _making:
            if _note_writer is None:
                app: Any = app_or_default()
                # An app that is none of ours has nowhere to write to.
                _note_writer = NoteWriter(
                    getattr(app, "open_notes", lambda: None), max(get_settings().task_log_lines, 1)
                )
    return _note_writer


def finish_writing(within_seconds: float = 1.0) -> None:
    """Write what is left, if this process has a note writer."""
    if _note_writer is not None:
        _note_writer.flush(within_seconds)


def _leave_to_parent() -> None:
    global _note_writer, _making
    _note_writer, _making = None, threading.Lock()


os.register_at_fork(after_in_child=_leave_to_parent)
