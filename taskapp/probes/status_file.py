"""Writes the status that ``health`` reads, once a second, from a thread that no task or broker can block."""

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

from taskapp.background import start_native_thread, this_process
from taskapp.private_files import make_private_directory, open_private
from taskapp.probes.health import FILE_BYTES, SUFFIX, Status, directory, nodes

logger = logging.getLogger(__name__)

WRITE_SECONDS = 1.0

Look = Callable[[Status, float], None]


class StatusFile:
    """The status file of this process, locked while the process lives and overwritten in place."""

    def __init__(self, data_dir: Path, name: str) -> None:
        # Two nodes may have been given the same name; the process id distinguishes them.
        readable = re.sub(r"[^A-Za-z0-9@.-]", "_", name)[:100]
        self.path = Path(directory(str(data_dir))) / f"{readable}.{os.getpid()}{SUFFIX}"
        self._file = -1

    def write(self, data: bytes) -> None:
        """Write ``data``, to a new file if the old one was removed.

        Raises:
            OSError: Permission is denied, or there is no space for a new file.
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
            # Locked before it gets its name, so that no probe finds it unlocked.
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
        """Remove the file; ignore errors."""
        with suppress(OSError):
            self.path.unlink()


class Reporter:
    """Keeps the status file of this process up to date."""

    def __init__(self, data_dir: Path, status: Status, look: Look = lambda *_: None) -> None:
        """Create a reporter, without writing anything.

        Args:
            data_dir: Parent of the directory for status files.
            status: The status to write; other code updates it.
            look: Called with ``status`` and the monotonic time before each write, on the reporter's thread; may be set
                later.
        """
        self.status = status
        self.look = look
        self._data_dir = data_dir
        self._file = StatusFile(data_dir, status.name)
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._process = this_process()

    def start(self) -> None:
        """Start writing the file once a second."""
        with suppress(OSError):
            # Reading removes the files of dead processes.
            list(nodes(str(self._data_dir)))
        start_native_thread(self._run, name="status")

    def stop(self) -> None:
        """Stop writing and remove the file."""
        self._stop.put(None)
        if this_process() is self._process:
            self._file.remove()

    def note(self, now: float) -> None:
        """Update the status and write it; ``now`` is the monotonic time.

        Raises:
            OSError: The file cannot be written.
        """
        self.look(self.status, now)
        self.status.written_at = now
        self._file.write(self.status.dump())

    def _run(self) -> None:
        failed_at = 0.0
        while this_process() is self._process:
            now = monotonic()
            try:
                self.note(now)
                if failed_at:
                    logger.info("probes can see this node again, after %.0f s", now - failed_at)
                failed_at = 0.0
            except OSError as error:
                if not failed_at:
                    failed_at = now
                    logger.warning(
                        "probes will report that no node runs here: could not write to %s (%s); "
                        "make TASKAPP_DATA_DIR writable", self._file.path.parent, error.strerror or error,
                    )  # fmt: skip
            try:
                self._stop.get(timeout=WRITE_SECONDS)
            except Empty:
                continue
            self._file.remove()
            return
