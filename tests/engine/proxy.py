"""A TCP proxy that breaks connections at the worst moment."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Proxy:
    """Passes bytes between clients and one server until told to break.

    ``cut_question`` swallows what the client sends next, ``hold_question`` keeps it for ``release``,
    and ``cut_answer`` swallows the answer after so many; then the connection is closed.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut_question = self.hold_question = self.refuse = self.refuse_after_cut = False
        self.cut_answer: int | None = None
        """How many answers still pass before one is swallowed; ``None``: all."""
        self.cuts = 0
        self._held: list[tuple[socket.socket, bytes]] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._open += [client, server]
            threading.Thread(target=self._pump_questions, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pump_answers, args=(client, server), daemon=True).start()

    def _pump_questions(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                if self.hold_question:
                    self.hold_question = False
                    self._held.append((server, data))
                    self._cut(client)
                    return
                if self.cut_question:
                    self.cut_question = False
                    break
                server.sendall(data)
        self._cut(client, server)

    def _pump_answers(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if self.cut_answer is not None:
                    self.cut_answer -= 1
                    if self.cut_answer < 0:
                        self.cut_answer = None
                        break
                client.sendall(data)
        if all(held is not server for held, _ in self._held):
            self._cut(client, server)

    def _cut(self, *ends: socket.socket) -> None:
        self.cuts += 1
        self.refuse = self.refuse or self.refuse_after_cut
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Let what was held reach the server."""
        for server, data in self._held:
            server.sendall(data)

    def close(self) -> None:
        self._listener.close()
        self._cut(*self._open)
        for end in self._open:
            end.close()
