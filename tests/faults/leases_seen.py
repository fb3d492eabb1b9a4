"""What the server itself says of claims: which message was leased when, from ``MONITOR``."""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import dataclass

from taskapp.redis.keys import Keys

_COMMAND = re.compile(
    rb'^\+(?P<at>[\d.]+) \[.*? lua\] "(?P<command>HSET|HDEL)" "%s(?P<epoch>[^"]+)" "(?P<tag>[^"]+)"(?P<rest>.*)$'
    % re.escape(Keys()("leased").encode())
)
_ID = re.compile(rb"(?:\\x[0-9a-f]{2}|\\[abnrt]|[^\\])([a-z_]+\.\w+\.c\w+-\d+)")
"""An id after its length, which may be shown as an escape."""


@dataclass
class Lease:
    """One claim of one message, times by CLOCK_MONOTONIC; ``ended_at`` is ``None`` while it is leased."""

    id: str
    epoch: str
    begun_at: float
    ended_at: float | None = None


class LeasesSeen:
    """All claims of tasks in ``limit_tasks`` since it was made; the server must live as long."""

    def __init__(self, port: int) -> None:
        self.leases: list[Lease] = []
        self._open: dict[tuple[bytes, bytes], Lease] = {}
        self._monotonic = time.monotonic() - time.time()
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(b"MONITOR\r\n")
        assert self._socket.recv(5) == b"+OK\r\n"
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more, once all that was said is taken in."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                if b' lua] "H' in line and b":leased:" in line and (said := _COMMAND.match(line.rstrip())):
                    self._take(said)

    def _take(self, said: re.Match[bytes]) -> None:
        claim, at = (said["epoch"], said["tag"]), float(said["at"]) + self._monotonic
        if said["command"] == b"HDEL":
            if lease := self._open.pop(claim, None):
                lease.ended_at = at
        elif claim not in self._open and (named := _ID.search(said["rest"])):
            self._open[claim] = Lease(named[1].decode(), said["epoch"].decode(), at)
            self.leases.append(self._open[claim])
