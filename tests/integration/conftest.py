from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from tests.integration import rabbitmq
from tests.integration.databases import Database, running
from tests.integration.django_projects import Project
from tests.support import RedisServer


@pytest.fixture(scope="session")
def _web_process(session_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Celery:
    os.environ["TASKAPP_BROKER_URL"] = session_server.url
    os.environ["TASKAPP_DATA_DIR"] = str(tmp_path_factory.mktemp("data"))
    from taskapp.celery import app
    from taskapp.settings import forget_settings

    # Collecting a module that holds a task binds it, and binding reads the settings.
    forget_settings()
    return app


@pytest.fixture
def app(_web_process: Celery, redis_server: RedisServer) -> Celery:
    """Our app as a web process has it; settings and connections live as long as the process."""
    # pytest-celery makes apps of its own in this process and leaves the last one current; so do other tests, and some
    # of theirs are that of all threads.
    _web_process.set_current()
    _web_process.set_default()
    return _web_process


@pytest.fixture(scope="session")
def _rabbitmq(run_directory: Path) -> rabbitmq.Rooms:
    if not rabbitmq.is_installed():
        pytest.skip("rabbitmq-server is not installed")
    return rabbitmq.of_the_run(run_directory / "rabbitmq")


@pytest.fixture(scope="module")
def rabbitmq_url(_rabbitmq: rabbitmq.Rooms) -> str:
    """The URL of a virtual host for this module alone, on a RabbitMQ that no test stops, freezes or fills."""
    return _rabbitmq.room()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Database]:
    with running("postgresql") as server:
        yield server


@pytest.fixture
def shop(redis_server: RedisServer, postgres: Database, tmp_path: Path) -> Iterator[Project]:
    project = Project(redis_server, postgres, tmp_path)
    yield project
    project.close()


@pytest.fixture
def plain_shop(redis_server: RedisServer, tmp_path: Path) -> Iterator[Project]:
    """The project on SQLite."""
    project = Project(redis_server, None, tmp_path)
    yield project
    project.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Path]:
    """Tasks of ``blocking`` wait until this file exists."""
    path = tmp_path / "opened"
    yield path
    path.touch()
