"""A network between one worker and Redis that can be cut: silently, as networks are, or with a reset."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

CHUNK_BYTES = 1 << 16
BACKLOG = 64


class Wire:
    """Passes bytes between its own port and the server's until it is cut.

    While it is cut nothing passes, and who connects waits. ``mend`` delivers what was on its way, as TCP does
    by sending it again, or resets the connections of before.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._whole = threading.Event()
        self._whole.set()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The server, by way of this wire."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Let nothing pass from now on, in either direction."""
        self._whole.clear()

    def mend(self, *, reset: bool) -> None:
        """Let bytes pass again; with ``reset``, not those of connections that were cut."""
        if reset:
            self._close_ends()
        self._whole.set()

    def close(self) -> None:
        """End all connections and take no more."""
        self._listener.close()
        self._close_ends()
        self._whole.set()

    def _close_ends(self) -> None:
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._whole.wait()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._ends += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._whole.wait()
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
