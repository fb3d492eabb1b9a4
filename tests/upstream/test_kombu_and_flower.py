"""kombu's integration tests on our transports, and Flower's unit tests with our app and tabs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration import rabbitmq
from tests.upstream.other_suites import FLOWER, KOMBU_RABBITMQ, KOMBU_REDIS
from tests.upstream.suites import run

pytestmark = pytest.mark.timeout(900)
Unpacked = Callable[[str], None]


@pytest.mark.quick("a sample")
@pytest.mark.parametrize("each", [32, 1], ids=["a sample", "all"])
def test_kombus_tests_pass_over_redis(unpacked: Unpacked, variables: dict[str, str], tmp_path: Path, each: int) -> None:
    unpacked("kombu")
    done = run(KOMBU_REDIS, tmp_path, each=each, **variables)

    assert not done.failed(), done.output


@pytest.mark.slow
@pytest.mark.skipif(not rabbitmq.is_installed(), reason="rabbitmq-server is not installed")
def test_kombus_tests_pass_over_rabbitmq(
    unpacked: Unpacked, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    unpacked("kombu")
    server = rabbitmq.RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    try:
        done = run(KOMBU_RABBITMQ, tmp_path, RABBITMQ_HOST="127.0.0.1", RABBITMQ_5672_TCP=str(server.ports.broker))
    finally:
        server.close()

    assert not done.failed(), done.output


@pytest.mark.quick("a sample")
@pytest.mark.parametrize("each", [16, 1], ids=["a sample", "all"])
def test_flowers_tests_pass(unpacked: Unpacked, variables: dict[str, str], tmp_path: Path, each: int) -> None:
    unpacked("flower")
    done = run(FLOWER, tmp_path, each=each, **variables)

    assert not done.failed(), done.output
