"""A way to Redis on which connections break: reset whole, reset in the middle of an answer, or forgotten."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

Break = Literal["all", "one", "in_answer", "forget_all", "forget_one"]
BREAKS: tuple[Break, ...] = ("all", "one", "in_answer", "forget_all", "forget_one")
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class _End(asyncio.Protocol):
    """One end of a connection; what comes in goes out at the other."""

    def __init__(self, breaks: Breaks, other: _End | None = None) -> None:
        self._breaks = breaks
        self.other = other
        self.is_server = other is not None
        self.is_forgotten = False
        self.transport: Any = None
        self._early = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.other is None:
            self._breaks.connect(self)
        else:
            self.other.other = self
            transport.write(self.other._early)

    def data_received(self, data: bytes) -> None:
        if self.is_forgotten:
            return
        if self.other is None:
            self._early += data
        elif self.is_server and self._breaks.is_due_in_answer():
            self.other.transport.write(data[: max(1, len(data) // 2)])
            self.reset()
        else:
            self.other.transport.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._breaks.ends.discard(self)
        if self.other is not None and not self.is_forgotten:
            self.other.transport.close()

    def reset(self) -> None:
        for end in (self, self.other):
            if end is not None:
                with suppress(OSError):
                    end.transport.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE
                    )
                end.transport.abort()

    def forget(self) -> None:
        """Let nothing pass any more, and tell neither end."""
        for end in (self, self.other):
            if end is not None:
                end.is_forgotten = True


class Breaks:
    """Passes bytes between its own port and the server's, and breaks connections when told to.

    Connections made after a break work.
    """

    def __init__(self, server_port: int, seed: int) -> None:
        self._server_port = server_port
        self._random = random.Random(seed)
        self.ends: set[_End] = set()
        """The clients' ends."""
        self._in_answer = False
        self.port = 0
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        ready.wait()

    @property
    def url(self) -> str:
        """The server, by this way."""
        return f"redis://127.0.0.1:{self.port}/0"

    def do(self, what: Break) -> None:
        """Break some connections, soon."""
        acts: dict[Break, Callable[[], None]] = {
            "all": lambda: [end.reset() for end in list(self.ends)],
            "one": lambda: self._one().reset() if self.ends else None,
            "in_answer": lambda: setattr(self, "_in_answer", True),
            "forget_all": lambda: [end.forget() for end in self.ends],
            "forget_one": lambda: self._one().forget() if self.ends else None,
        }
        self._loop.call_soon_threadsafe(acts[what])

    def close(self) -> None:
        """End all connections and take no more."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def is_due_in_answer(self) -> bool:
        """Say once whether the answer that comes now is to be cut in two."""
        is_due, self._in_answer = self._in_answer, False
        return is_due

    def connect(self, client: _End) -> None:
        """Connect ``client`` to the server."""
        self.ends.add(client)
        task = self._loop.create_task(
            self._loop.create_connection(lambda: _End(self, client), "127.0.0.1", self._server_port)
        )
        task.add_done_callback(lambda done: client.reset() if done.exception() else None)

    def _one(self) -> _End:
        return self._random.choice(list(self.ends))

    def _run(self, ready: threading.Event) -> None:
        server = self._loop.run_until_complete(self._loop.create_server(lambda: _End(self), "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        for end in list(self.ends):
            end.reset()
        self._loop.run_until_complete(asyncio.sleep(0))
