"""A web server for the demo and tests that fails first: 503 with ``Retry-After: 1``, then 200 with JSON.

    python -m taskapp.demo.flaky_server --failures 2 --port 0

prints ``flaky server listening on 127.0.0.1:<port>`` once it answers. It counts requests by the ``key`` in the
query, or else by path, so ``/orders?key=7`` fails twice independently of others. ``GET /stats`` returns the counts.
"""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click

from taskapp.background import start_thread

LOOPBACK = "127.0.0.1"
RETRY_AFTER_SECONDS = 1
MAX_BODY_BYTES = 1_048_576
SILENCE_SECONDS = 30
"""How long a client may be silent before its connection is closed."""


class FlakyServer(ThreadingHTTPServer):
    """Listens on loopback; answers the first ``failures`` requests of each key with 503. Port 0 picks a free one."""

    daemon_threads = True

    def __init__(self, port: int, failures: int) -> None:
        super().__init__((LOOPBACK, port), FlakyRequest)
        self.failures = failures
        self._requests: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    def count(self, key: str) -> int:
        """Count a request for ``key`` and return the number so far, including this one."""
        with self._lock:
            self._requests[key] += 1
            return self._requests[key]

    def stats(self) -> dict[str, Any]:
        """Return ``requests``, ``failed`` and the requests ``by_key``."""
        with self._lock:
            by_key = dict(self._requests)
        failed = sum(min(count, self.failures) for count in by_key.values())
        return {"requests": sum(by_key.values()), "failed": failed, "by_key": by_key}


class FlakyRequest(BaseHTTPRequestHandler):
    """One request. All methods are answered alike."""

    server: FlakyServer
    timeout = SILENCE_SECONDS

    def do_GET(self) -> None:
        """Answer 503 or 200, or the counts."""
        self._read_body()
        url = urlsplit(self.path)
        if url.path == "/stats":
            self._answer(200, self.server.stats())
            return
        key = parse_qs(url.query).get("key", [url.path])[0]
        count = self.server.count(key)
        if count <= self.server.failures:
            self._answer(503, {"error": "not yet", "key": key, "request": count})
        else:
            self._answer(200, {"key": key, "request": count})

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _read_body(self) -> None:
        # If the body stays unread, the kernel resets the connection before the answer has been sent.
        length = self.headers.get("Content-Length", "0")
        self.rfile.read(min(int(length) if length.isdigit() else 0, MAX_BODY_BYTES))

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == 503:
            self.send_header("Retry-After", str(RETRY_AFTER_SECONDS))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: see the counts."""


@click.command()
@click.option("--port", default=8_099, show_default=True, type=click.IntRange(0, 65_535), help="0 picks a free one.")
@click.option("--failures", default=2, show_default=True, type=click.IntRange(0), help="Failing requests per key.")
def main(*, port: int, failures: int) -> None:
    """Answer the first requests of each key on this port of 127.0.0.1 with 503, later ones with 200."""
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    # Block the signals before the thread starts, which inherits the mask: only the wait below receives them.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    try:
        server = FlakyServer(port, failures)
    except OSError as error:
        raise click.ClickException(f"cannot listen on port {port}: {error}") from error
    with server:
        start_thread(server.serve_forever, name="flaky-server")
        click.echo(f"flaky server listening on {LOOPBACK}:{server.port}")
        signal.sigwait(stop_signals)
        server.shutdown()


if __name__ == "__main__":
    main()
