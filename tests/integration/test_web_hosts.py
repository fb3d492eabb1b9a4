"""Flower and the exporter over HTTP, asked by names that a stranger's web page could have, and inside its frame."""

from __future__ import annotations

import re
import sys
from base64 import b64encode
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from flower import urls

from tests.support import Node, RedisServer, clean_environment, eventually, free_port, start_flower

LOGIN = "ada:secret"
OURS = [
    "/overview", "/overview/data", "/nodes", "/nodes/data", "/nodes/actions/drain", "/taskapp/static/tabs.js",
    "/dead-letters", "/nowhere", "/static/nothing.css", "/static/css/flower.css",
]  # fmt: skip
PATTERNS = [str(each.regex.pattern if hasattr(each, "regex") else each[0]) for each in urls.handlers]
PATHS = [re.sub(r"\(.*?\)", "x", pattern) for pattern in PATTERNS]
EVERYWHERE = sorted({path.removesuffix("$").replace("?", "") for path in PATHS if path.startswith("/")} | set(OURS))


def ask(address: str, path: str, host: str | None = None, method: str = "GET") -> tuple[int, dict[str, str], str]:
    """Return status, headers and body; ``host`` instead of the address in ``Host``."""
    place = address.removeprefix("http://")
    connection = HTTPConnection(place, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", place if host is None else host)
    connection.putheader("Authorization", "Basic " + b64encode(LOGIN.encode()).decode())
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read().decode(errors="replace")


@pytest.fixture(scope="module", params=["", "watch"], ids=["at the root", "below a prefix"])
def flower(request: Any, tmp_path_factory: pytest.TempPathFactory, session_server: RedisServer) -> Iterator[str]:
    process, address = start_flower(
        tmp_path_factory.mktemp("flower"), f"--basic_auth={LOGIN}", f"--url_prefix={request.param}",
        TASKAPP_BROKER_URL=session_server.url, TASKAPP_WEB_HOSTS="flower.example",
    )  # fmt: skip
    yield address + (f"/{request.param}" if request.param else "")
    process.close()


def parts(flower: str) -> tuple[str, str]:
    scheme_and_place, _, prefix = flower.removeprefix("http://").partition("/")
    return f"http://{scheme_and_place}", f"/{prefix}" if prefix else ""


def test_nothing_is_answered_or_done_for_the_name_of_a_stranger(flower: str) -> None:
    address, prefix = parts(flower)

    for path in EVERYWHERE:
        for method in ("GET", "POST"):
            status, _, body = ask(address, prefix + path, host="evil.example:5555", method=method)
            # Where a method is not known, or a form has no proof of where it comes from, that is said first.
            assert status in ((403,) if method == "GET" else (403, 405)), (path, method, status)
            assert method == "POST" or "this server does not answer for the host 'evil.example:5555'" in body, path


def test_what_is_known_is_answered(flower: str) -> None:
    address, prefix = parts(flower)

    for host in (None, "localhost", "flower.example", "10.0.0.7:5555", "[::1]:5555"):
        assert ask(address, f"{prefix}/workers", host)[0] == 200


def test_nothing_of_it_can_be_shown_in_a_frame(flower: str) -> None:
    address, prefix = parts(flower)
    statuses = set()

    for path in EVERYWHERE:
        for host in (None, "evil.example"):
            for method in ("GET", "POST", "DELETE"):
                status, headers, _ = ask(address, prefix + path, host, method)
                statuses.add(status)
                assert headers["X-Frame-Options"] == "DENY", (path, method, status)
                assert headers["Content-Security-Policy"].count("frame-ancestors 'none'") == 1, (path, method, status)

    assert {200, 403, 404, 405} <= statuses


def test_the_exporter_answers_prometheus_and_no_stranger(tmp_path: Path, redis_server: RedisServer) -> None:
    port = free_port()
    environment = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, PYTHONPATH=str(Path.cwd()), TASKAPP_WEB_HOSTS="exporter"
    )
    argv = [sys.executable, "-m", "taskapp", "exporter", "--port", str(port)]
    exporter = Node(argv, tmp_path / "exporter.log", environment)
    try:
        eventually(lambda: "metrics at" in exporter.output() or exporter.returncode is not None, within_seconds=40)
        address = f"http://127.0.0.1:{port}"
        refused = ask(address, "/metrics", "evil.example")
        answered = [ask(address, "/metrics", host) for host in (None, "localhost", "exporter:9540", "10.0.0.7:9540")]
    finally:
        exporter.close()

    assert refused[0] == 403
    assert "taskapp_" not in refused[2]
    assert [status for status, _, _ in answered] == [200] * 4
    assert all("taskapp_broker_up 1.0" in body for _, _, body in answered)
