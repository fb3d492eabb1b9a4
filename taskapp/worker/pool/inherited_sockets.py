"""Closes the sockets that a child process inherits from its parent.

A connection held by both is not closed when the parent closes it, their reads and writes interfere, and the parent's
poller keeps reporting it. The descriptor numbers stay in use, redirected to ``/dev/null``, so that objects that still
refer to them find a broken connection and never an unrelated one.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

DESCRIPTORS = "/dev/fd"
STANDARD_STREAMS = 3


def detach_inherited_sockets() -> None:
    """Redirect every inherited socket to ``/dev/null``, except datagram sockets (syslog), which can be shared."""
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for name in os.listdir(DESCRIPTORS):  # noqa: PTH208 - only the numbers are needed, not paths
            number = int(name)
            if number >= STANDARD_STREAMS and number != nowhere and _is_shared_stream(number):
                os.dup2(nowhere, number, inheritable=False)
    except FileNotFoundError:
        return  # this system does not list descriptors
    finally:
        os.close(nowhere)


def _is_shared_stream(number: int) -> bool:
    with suppress(OSError):
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            with socket.socket(fileno=os.dup(number)) as copy:
                return copy.type != socket.SOCK_DGRAM
    return False
