"""What a child process has of its parent and must not keep: sockets.

A connection that parent and child both hold is not closed when the parent closes it; what either reads or writes is
missing from, or in the midst of, what the other does; and the parent's poller goes on announcing it. The numbers
stay taken, by descriptors that lead nowhere, so that objects which know them find a broken connection and never a
stranger's.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

DESCRIPTORS = "/dev/fd"
STANDARD_STREAMS = 3


def let_go_of_sockets() -> None:
    """Replace every inherited socket by one end of nothing, but for datagrams, such as a log's, which can be shared."""
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for name in os.listdir(DESCRIPTORS):  # noqa: PTH208 - numbers, of which paths would be made for nothing
            number = int(name)
            if number >= STANDARD_STREAMS and number != nowhere and _is_shared_stream(number):
                os.dup2(nowhere, number, inheritable=False)
    except FileNotFoundError:
        return  # a system without a list of descriptors
    finally:
        os.close(nowhere)


def _is_shared_stream(number: int) -> bool:
    with suppress(OSError):
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            with socket.socket(fileno=os.dup(number)) as copy:
                return copy.type != socket.SOCK_DGRAM
    return False
