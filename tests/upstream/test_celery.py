"""Celery's own integration suite on taskapp: a sample each time, the whole of it in ``make test-all``."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support import RedisServer
from tests.upstream.celery_suite import CELERY
from tests.upstream.sources import NoSource, source
from tests.upstream.suites import run

SAMPLE = 8
CANVAS = "t/integration/test_canvas.py"


@pytest.fixture
def servers(redis_server: RedisServer) -> dict[str, str]:
    """The variables in which their tests look for servers."""
    try:
        source("celery")
    except NoSource as error:
        pytest.skip(str(error))
    url = redis_server.url
    port = str(urlsplit(url).port)
    return {"TEST_BROKER": url, "TEST_BACKEND": url, "REDIS_HOST": "127.0.0.1", "REDIS_PORT": port}


@pytest.mark.timeout(900)
def test_a_sample_of_them_passes(servers: dict[str, str], tmp_path: Path) -> None:
    done = run(CELERY, tmp_path, each=SAMPLE, **servers)

    assert not done.failed(), done.output


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("tests", [(CANVAS,), (CELERY.folder, "--ignore", CANVAS)], ids=["canvas", "the others"])
def test_they_pass(servers: dict[str, str], tmp_path: Path, tests: tuple[str, ...]) -> None:
    done = run(CELERY, tmp_path, *tests, **servers)

    assert not done.failed(), done.output
