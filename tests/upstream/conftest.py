from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support import RedisServer
from tests.upstream.sources import NoSource, source

Variables = dict[str, str]


@pytest.fixture
def unpacked() -> Callable[[str], None]:
    """Skips the test where the source distribution of a package cannot be had."""

    def unpack(package: str) -> None:
        try:
            source(package)
        except NoSource as error:
            pytest.skip(str(error))

    return unpack


@pytest.fixture
def variables(redis_server: RedisServer) -> Variables:
    """The variables in which their tests look for Redis."""
    url, port = redis_server.url, str(redis_server.port)
    return {
        "TEST_BROKER": url,
        "TEST_BACKEND": url,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": port,
        "REDIS_6379_TCP": port,
        "TASKAPP_BROKER_URL": url,
    }
