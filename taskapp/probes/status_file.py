"""Writes what ``health`` reads: each second, from a thread that no task and no broker can hold up."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from _queue import Empty, SimpleQueue  # the native one: gevent's would block its hub
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

from taskapp.engine.heartbeat import native_thread
from taskapp.private_files import make_private_directory, open_private
from taskapp.probes.health import FILE_BYTES, SUFFIX, Status, directory, nodes

logger = logging.getLogger(__name__)

WRITE_SECONDS = 1.0

Look = Callable[[Status, float], None]


class StatusFile:
    """One file, locked as long as this process lives, overwritten in place."""

    def __init__(self, data_dir: Path, name: str) -> None:
        # Names are unique on purpose only: the process id tells apart two nodes that were given the same.
        readable = re.sub(r"[^A-Za-z0-9@.-]", "_", name)[:100]
        self.path = Path(directory(str(data_dir))) / f"{readable}.{os.getpid()}{SUFFIX}"
        self._file = -1

    def write(self, data: bytes) -> None:
        """Write ``data``, in a new file if somebody removed the old one.

        Raises:
            OSError: It cannot be written: no right to, or no room for a new file.
        """
        if self._file < 0 or os.fstat(self._file).st_nlink == 0:
            self._create(data)
        else:
            os.pwrite(self._file, data, 0)

    def _create(self, data: bytes) -> None:
        make_private_directory(self.path.parent)
        new = self.path.with_suffix(".new")
        with suppress(FileNotFoundError):
            new.unlink()
        file = open_private(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        try:
            # Before it has its name, so that no probe finds it without its lock.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.pwrite(file, data, 0) < FILE_BYTES:
                raise OSError("no space left")
            new.rename(self.path)
        except OSError:
            os.close(file)
            new.unlink(missing_ok=True)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file = file

    def remove(self) -> None:
        """Remove it."""
        with suppress(OSError):
            self.path.unlink()


class Reporter:
    """Keeps the state of this process in its file."""

    def __init__(self, data_dir: Path, status: Status, look: Look = lambda *_: None) -> None:
        """Make a reporter that has written nothing yet.

        Args:
            data_dir: Where the file goes, in a folder of all nodes.
            status: What to write; whoever knows something sets it there.
            look: Called with ``status`` and the time before it is written, in another thread; may be set later.
        """
        self.status = status
        self.look = look
        self._data_dir = data_dir
        self._file = StatusFile(data_dir, status.name)
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._pid = os.getpid()

    def start(self) -> None:
        """Write once, and from now on each second."""
        with suppress(OSError):
            # Reading removes what dead processes left.
            list(nodes(str(self._data_dir)))
        native_thread(self._run)

    def stop(self) -> None:
        """Remove the file; nothing is written any more."""
        self._stop.put(None)
        if os.getpid() == self._pid:
            self._file.remove()

    def note(self, now: float) -> None:
        """Write what is known at ``now``."""
        self.look(self.status, now)
        self.status.written_at = now
        self._file.write(self.status.dump())

    def _run(self) -> None:
        failed_at = 0.0
        while os.getpid() == self._pid:
            now = monotonic()
            try:
                self.note(now)
                if failed_at:
                    logger.info("probes know this node again, after %.0f s", now - failed_at)
                failed_at = 0.0
            except OSError as error:
                if not failed_at:
                    failed_at = now
                    logger.warning(
                        "probes will say that no node runs here: %s cannot be written (%s); "
                        "make TASKAPP_DATA_DIR writable", self._file.path.parent, error.strerror or error,
                    )  # fmt: skip
            try:
                self._stop.get(timeout=WRITE_SECONDS)
            except Empty:
                continue
            self._file.remove()
            return
