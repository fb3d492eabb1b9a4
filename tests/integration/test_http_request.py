from __future__ import annotations

import asyncio
import gzip
import json
import re
import signal
import socket
import ssl
import sys
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from taskapp.demo.flaky_server import FlakyServer
from taskapp.errors import PermanentError, TransientError
from taskapp.tasks.http_request import HttpRequest, HttpResponse, run
from taskapp.tasks.http_request.hosts import AllowedHost
from taskapp.tasks.http_request.run import fetch
from tests.support import Process, clean_environment, eventually, free_port

TASK_TYPE = "taskapp.tasks.http_request"
Answer = tuple[int, dict[str, str], bytes]


class WebServer(ThreadingHTTPServer):
    """A real server on loopback: answers by path as configured, each used once and the last one repeatedly."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WebRequest)
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[WebRequest] = []
        self.port = int(self.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def tell(self, path: str, status: int, content: bytes = b"", **headers: str) -> str:
        """Answer so at ``path``; return its URL."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.setdefault(path, []).append((status, named, content))
        return self.url + path

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing when a client leaves early."""


class WebRequest(BaseHTTPRequestHandler):
    server: WebServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.received_at = time.monotonic()
        self.server.requests.append(self)
        told = self.server.answers[self.path.partition("?")[0]]
        status, headers, content = told.pop(0) if len(told) > 1 else told[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    with server:
        yield server
        server.shutdown()
    thread.join(10)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with running(WebServer()) as server:
        yield server


@pytest.fixture
def other() -> Iterator[WebServer]:
    with running(WebServer()) as server:
        yield server


@contextmanager
def scripted(script: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server on loopback that does what ``script`` says with each connection."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # the client may leave first
                connection.recv(65_536)
                script(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)


def call(url: str, *, allowed: str | None = None, timeout_seconds: float = 5, **fields: Any) -> HttpResponse:
    """Fetch ``url``; by default its own host and port are all that is allowed."""
    entries = [AllowedHost.parse(entry) for entry in (allowed or url.split("/")[2]).split(",")]
    request = HttpRequest.model_validate({"url": url, **fields})
    return asyncio.run(fetch(request, entries, timeout_seconds=timeout_seconds, key="key-1"))


# --- answers ---------------------------------------------------------------------------------


def test_a_json_answer_comes_back_with_what_was_sent(web: WebServer) -> None:
    url = web.tell("/orders", 201, b'{"id": 7}', Content_Type="application/json", ETag='"e"', Set_Cookie="s=1")

    answer = call(url, method="POST", json_body={"n": 1}, params={"q": "ä"}, headers={"X-A": "b"})

    [request] = web.requests
    assert answer.model_dump(exclude={"elapsed_seconds", "headers"}) == {
        "status": 201, "url": f"{url}?q=%C3%A4", "text": None, "json_body": {"id": 7},
    }  # fmt: skip
    assert {"content-type": "application/json", "etag": '"e"'}.items() <= answer.headers.items()
    assert "set-cookie" not in answer.headers
    assert 0 < answer.elapsed_seconds < 30
    assert (request.command, request.content, request.headers["X-A"]) == ("POST", b'{"n": 1}', "b")
    assert request.headers["Idempotency-Key"] == "key-1"


@pytest.mark.parametrize(
    ("content_type", "content", "text", "value"),
    [
        ("text/plain; charset=iso-8859-1", "Grüße".encode("latin-1"), "Grüße", None),
        ("text/plain; charset=punycode", b"abc", "abc", None),
        ("text/plain; charset=nonsense", "Grüße".encode(), "Grüße", None),
        ("text/plain", b"a\xff\x00", "a\ufffd\x00", None),
        ("application/problem+json", b"[1]", None, [1]),
        ("application/json", b"{broken", "{broken", None),
        ("application/json", b"NaN", "NaN", None),
        ("application/json", b"[1e999]", "[1e999]", None),
        ("application/json", rb'"\ud800"', r'"\ud800"', None),
        ("application/json", b"[" * 50_000, "[" * 50_000, None),
        ("application/json", b"9" * 5_000, "9" * 5_000, None),
        ("application/json", b"", "", None),
    ],
)
def test_every_answer_becomes_text_or_json_that_can_be_stored(
    web: WebServer, content_type: str, content: bytes, text: str | None, value: object
) -> None:
    answer = call(web.tell("/", 200, content, Content_Type=content_type))

    assert (answer.text, answer.json_body) == (text, value)
    assert HttpResponse.model_validate_json(json.dumps(answer.model_dump(mode="json"), allow_nan=False)) == answer


def test_a_compressed_answer_is_unpacked(web: WebServer) -> None:
    answer = call(web.tell("/", 200, gzip.compress(b"x" * 5_000), Content_Encoding="gzip"), max_response_bytes=5_000)

    assert answer.text == "x" * 5_000


def test_an_empty_answer_and_one_to_head_are_answers(web: WebServer) -> None:
    assert call(web.tell("/", 204)).text == ""
    assert call(web.tell("/head", 200, b"12345"), method="HEAD").text == ""


# --- refused, and later ----------------------------------------------------------------------


def test_a_signed_url_goes_out_byte_for_byte_also_through_a_redirect(web: WebServer) -> None:
    query = "?X-Sig=a%2Fb~c%20d+e&e=*!()',;:@&k&=v"
    there = web.tell("/a%2Fb/%7Ec/../d", 200, b"ok")
    web.tell("/first/../first", 307, Location=f"{there}{query}")

    answer = call(f"{web.url}/first/../first{query}")

    assert [request.path for request in web.requests] == [f"/first/../first{query}", f"/a%2Fb/%7Ec/../d{query}"]
    assert (answer.text, answer.url) == ("ok", f"{there}{query}")


def test_an_answer_that_goes_on_behind_its_gzip_is_taken_at_once(web: WebServer) -> None:
    content = gzip.compress(b"hi") + gzip.compress(b" you") + b"x" * 5_000_000

    assert call(web.tell("/", 200, content, Content_Encoding="gzip"), max_response_bytes=1_000).text == "hi you"


def test_an_answer_that_ends_within_its_gzip_is_asked_for_again(web: WebServer) -> None:
    with pytest.raises(TransientError, match="returned truncated gzip"):
        call(web.tell("/", 200, gzip.compress(b"hi" * 99)[:-4], Content_Encoding="gzip"))


def test_a_refusal_fails_for_good_with_status_and_body_and_without_the_query(web: WebServer) -> None:
    url = web.tell("/orders", 404, b"no such order " + b"x" * 5_000_000)

    with pytest.raises(PermanentError) as caught:
        call(f"{url}?token=secret")

    assert str(caught.value).startswith(f"GET {url} returned 404: 'no such order xxx")
    assert str(caught.value).endswith("'; correct the request, or add 404 to expected_status")
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_that_says_later_is_tried_later_and_not_before_it_asked(web: WebServer, status: int) -> None:
    with pytest.raises(TransientError, match=f"returned {status}: 'busy'$") as caught:
        call(web.tell("/", status, b"busy", Retry_After="7"))

    assert caught.value.retry_after_seconds == 7


@pytest.mark.parametrize(("retry_after", "seconds"), [("-5", None), ("soon", None), ("99999999", 3_600)])
def test_a_nonsense_retry_after_does_no_harm(web: WebServer, retry_after: str, seconds: float | None) -> None:
    with pytest.raises(TransientError) as caught:
        call(web.tell("/", 503, Retry_After=retry_after))

    assert caught.value.retry_after_seconds == seconds


def test_expected_statuses_are_success_and_no_others(web: WebServer) -> None:
    web.tell("/gone", 410)
    web.tell("/moved", 302, Location="http://evil.example/")
    web.tell("/ok", 200)

    assert call(f"{web.url}/gone", expected_status=[200, 410]).status == 410
    assert call(f"{web.url}/moved", expected_status=[302]).headers["location"] == "http://evil.example/"
    with pytest.raises(PermanentError, match="returned 200: ''; correct the request, or add 200 to expected_status"):
        call(f"{web.url}/ok", expected_status=[201])


def test_a_server_that_is_not_there_is_tried_later() -> None:
    with pytest.raises(TransientError, match=r"^GET http://127\.0\.0\.1:.* failed: All connection attempts failed"):
        call(f"http://127.0.0.1:{free_port()}/")


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123", b"SSH-2.0-OpenSSH\r\n\r\n"])
def test_a_server_that_breaks_off_is_tried_later(reply: bytes) -> None:
    with scripted(lambda connection: connection.sendall(reply)) as url, pytest.raises(TransientError, match="failed: "):
        call(url)


# --- hostile servers -------------------------------------------------------------------------


def drip(connection: socket.socket, start: bytes, piece: bytes) -> None:
    connection.sendall(start)
    while True:
        connection.sendall(piece)
        time.sleep(0.05)  # the pace of the server under test, not a wait for it


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 500 no\r\nContent-Length: 100\r\n\r\n", b"x"),
    ],
)
def test_a_server_that_drips_is_given_up_at_the_deadline(start: bytes, piece: bytes) -> None:
    started_at = time.monotonic()

    with (
        scripted(lambda connection: drip(connection, start, piece)) as url,
        pytest.raises(TransientError, match=r"got no complete response within 0\.5 s$"),
    ):
        call(url, timeout_seconds=0.5)

    assert 0.4 < time.monotonic() - started_at < 15


def test_redirects_share_one_deadline() -> None:
    def slow_redirect(connection: socket.socket) -> None:
        time.sleep(0.3)  # the pace of the server under test
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with scripted(slow_redirect) as url, pytest.raises(TransientError, match=r"within 0\.5 s"):
        call(url, timeout_seconds=0.5)


def test_an_answer_without_end_is_cut_off() -> None:
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent += connection.send(b"x" * 65_536)

    with scripted(endless) as url, pytest.raises(PermanentError) as caught:
        call(url, max_response_bytes=100_000)

    assert str(caught.value) == f"GET {url} returned more than 100000 bytes; raise max_response_bytes"
    assert sent < 30_000_000


def test_a_compressed_answer_is_measured_unpacked(web: WebServer) -> None:
    bomb = gzip.compress(bytes(50_000_000), compresslevel=1)
    assert len(bomb) < 1_000_000

    tracemalloc.start()
    try:
        with pytest.raises(PermanentError, match="returned more than 1048576 bytes"):
            call(web.tell("/", 200, bomb, Content_Encoding="gzip"))
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most_bytes < 10_000_000


def test_an_encoding_nobody_asked_for_and_broken_gzip_fail_for_good(web: WebServer) -> None:
    with pytest.raises(PermanentError, match="used the encoding 'br'; only gzip was offered"):
        call(web.tell("/br", 200, b"x", Content_Encoding="br"))
    with pytest.raises(PermanentError, match="returned corrupt gzip"):
        call(web.tell("/gz", 200, b"xxx", Content_Encoding="gzip"))


# --- the allow-list --------------------------------------------------------------------------


def test_a_host_that_is_not_listed_is_not_called(web: WebServer) -> None:
    with pytest.raises(PermanentError, match=r"^host '127\.0\.0\.1:.*' is not allowed"):
        call(web.tell("/", 200), allowed="api.example.com")

    assert web.requests == []


@pytest.mark.parametrize("location", ["http://127.0.0.1:{}/", "//127.0.0.1:{}/", "http://me@127.0.0.1:{}/"])
def test_a_redirect_to_a_host_that_is_not_listed_is_not_followed(
    web: WebServer, other: WebServer, location: str
) -> None:
    other.tell("/", 200)
    url = web.tell("/", 302, Location=location.format(other.port))

    with pytest.raises(PermanentError):
        call(url)

    assert (len(web.requests), other.requests) == (1, [])


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://2130706433/", "http://[::1]/"])
def test_a_redirect_out_of_the_web_is_not_followed(web: WebServer, location: str) -> None:
    with pytest.raises(PermanentError, match=r"not allowed"):
        call(web.tell("/", 302, Location=location))


def test_a_redirect_to_another_listed_host_is_followed_without_secrets(web: WebServer, other: WebServer) -> None:
    target = other.tell("/new", 200, b"here")
    web.tell("/hop", 307, Location=target)
    url = web.tell("/old", 307, Location="/hop")

    answer = call(
        url, allowed=f"127.0.0.1:{web.port},127.0.0.1:{other.port}", method="PUT", body="x",
        headers={"Authorization": "secret", "Cookie": "c=1", "X-Api-Key": "k", "Accept": "text/plain"},
    )  # fmt: skip

    here, there = web.requests[1], other.requests[0]
    assert (answer.text, answer.url) == ("here", target)
    assert (there.command, there.content, there.headers["Accept"]) == ("PUT", b"x", "text/plain")
    assert here.headers["Authorization"] == "secret"
    assert {"authorization", "cookie", "x-api-key"}.isdisjoint(name.lower() for name in there.headers)


def test_redirects_end_after_five(web: WebServer) -> None:
    with pytest.raises(PermanentError, match="redirects more than 5 times; call its target instead"):
        call(web.tell("/", 302, Location="/"))

    assert len(web.requests) == 6


def test_proxies_of_the_environment_are_not_used(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")

    assert call(web.tell("/", 200)).status == 200


@pytest.fixture
def https() -> Iterator[tuple[WebServer, trustme.CA]]:
    authority, server = trustme.CA(), WebServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.url = server.url.replace("http:", "https:")
    with running(server):
        yield server, authority


def test_a_certificate_nobody_vouches_for_fails_for_good(https: tuple[WebServer, trustme.CA]) -> None:
    server, _ = https

    with pytest.raises(PermanentError, match="the server's certificate is not trusted"):
        call(server.tell("/", 200))

    assert server.requests == []


def test_authorities_of_the_system_are_trusted_and_https_does_not_fall_back_to_http(
    https: tuple[WebServer, trustme.CA], web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, authority = https
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    run._trust.cache_clear()
    try:
        assert call(server.tell("/", 200, b"safe")).text == "safe"
        with pytest.raises(PermanentError, match="redirects from https to http, which is not allowed"):
            call(server.tell("/down", 302, Location=web.tell("/", 200)), allowed="127.0.0.1:*")
    finally:
        run._trust.cache_clear()

    assert web.requests == []


# --- through a worker ------------------------------------------------------------------------


@pytest.mark.usefixtures("app")
def test_a_task_comes_back_when_the_server_said_and_sends_the_same_idempotency_key(
    web: WebServer, worker: Callable[..., Process]
) -> None:
    from taskapp.tasks.http_request import http_request

    web.tell("/orders", 503, Retry_After="1")
    web.tell("/orders", 200, b'{"done": true}', Content_Type="application/json")
    worker(TASKAPP_INCLUDE=TASK_TYPE, TASKAPP_HTTP_ALLOWED_HOSTS=f"127.0.0.1:{web.port}")

    answer = http_request.delay(HttpRequest(method="POST", url=f"{web.url}/orders")).get(timeout=60)

    first, second = web.requests
    assert answer["json_body"] == {"done": True}
    assert second.received_at - first.received_at >= 1
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


@pytest.mark.usefixtures("app")
def test_without_an_allow_list_nothing_is_called_and_nothing_retried(
    web: WebServer, worker: Callable[..., Process]
) -> None:
    from taskapp.tasks.http_request import http_request

    worker(TASKAPP_INCLUDE=TASK_TYPE)

    with pytest.raises(PermanentError, match="is not allowed; add it to TASKAPP_HTTP_ALLOWED_HOSTS"):
        http_request.delay({"url": web.tell("/", 200)}).get(timeout=30)

    assert web.requests == []


# --- the flaky server of the demo ------------------------------------------------------------


def test_the_flaky_server_fails_first_and_counts_by_key() -> None:
    with running(FlakyServer(port=0, failures=2)) as server:
        url = f"http://127.0.0.1:{server.port}"
        for path in ("/a", "/a", "/b?key=7"):
            with pytest.raises(TransientError) as caught:
                call(url + path, method="POST", body="x" * 100_000)
            assert caught.value.retry_after_seconds == 1
        assert call(f"{url}/a").json_body == {"key": "/a", "request": 3}

        assert call(f"{url}/stats").json_body == {"requests": 4, "failed": 3, "by_key": {"/a": 3, "7": 1}}


def test_the_flaky_server_counts_right_under_many_clients_at_once() -> None:
    with running(FlakyServer(port=0, failures=5)) as server:

        def hit() -> None:
            for _ in range(10):
                with suppress(urllib.error.HTTPError):
                    urllib.request.urlopen(f"http://127.0.0.1:{server.port}/x", timeout=10).close()

        threads = [threading.Thread(target=hit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert server.stats() == {"requests": 80, "failed": 5, "by_key": {"/x": 80}}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_flaky_server_runs_by_itself_and_stops_quietly(tmp_path: Path, number: int) -> None:
    argv = [sys.executable, "-m", "taskapp.demo.flaky_server", "--failures", "1", "--port", "0"]
    server = Process(argv, tmp_path / "log", clean_environment())
    try:
        pattern = re.compile(r"^flaky server listening on 127\.0\.0\.1:(\d+)$", re.MULTILINE)
        line = eventually(lambda: pattern.search(server.output()))
        with pytest.raises(TransientError):
            call(f"http://127.0.0.1:{line[1]}/")
        assert call(f"http://127.0.0.1:{line[1]}/").status == 200
        with socket.create_connection(("127.0.0.1", int(line[1]))):
            server._popen.send_signal(number)
            assert server.wait() == 0
    finally:
        server.close()

    assert server.output() == line[0] + "\n"


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        argv = [sys.executable, "-m", "taskapp.demo.flaky_server", "--port", str(taken.getsockname()[1])]
        server = Process(argv, tmp_path / "log", clean_environment())

        assert server.wait() == 1

    assert re.fullmatch(r"Error: cannot listen on port \d+: .*in use\n", server.output())
