"""The pytest plugin. It imports neither Celery nor an app before a test asks for one of its fixtures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from taskapp.testing.tasks import Tasks
    from taskapp.testing.worker import RealWorker

INI = "taskapp_app"
MARK = "taskapp"
RECORDS = "taskapp.testing.records"
OPTIONS = ("app", "beat", "keep_failures", "start")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting that names the app."""
    parser.addini(INI, "Celery app for the fixtures tasks and taskapp_worker, such as proj.celery:app")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(app='proj.celery:app', start='2026-01-01T09:00', beat=False, keep_failures=False): options of the "
        "fixture tasks for one test: its app, the time at which its clock starts, whether all entries of beat_schedule "
        "are queued, and whether failed tasks do not raise",
    )


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain why lists of tasks are not equal; nothing else."""
    if op != "==" or RECORDS not in sys.modules:
        return None
    from taskapp.testing.records import explained

    return explained(left, right)


@pytest.fixture(scope="session")
def taskapp_app(request: pytest.FixtureRequest) -> Any:
    """The app under test: named by the setting ``taskapp_app``, else the current one. Override it to return another."""
    from taskapp.testing.finding import find_app

    return find_app(request.config.getini(INI))


@pytest.fixture
def tasks(request: pytest.FixtureRequest) -> Iterator[Tasks]:
    """Tasks run in this process when told, by a clock that stands still, see ``taskapp.testing.tasks.Tasks``."""
    from taskapp.testing.finding import find_app, options_of
    from taskapp.testing.install import in_process

    options = options_of(request.node.iter_markers(MARK), OPTIONS)
    app = find_app(options["app"]) if "app" in options else request.getfixturevalue("taskapp_app")
    with in_process(app, start=options.get("start"), keep_failures=bool(options.get("keep_failures"))) as tasks:
        if options.get("beat"):
            tasks.start_beat()
        yield tasks


@pytest.fixture(scope="session")
def taskapp_worker(taskapp_app: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealWorker]:
    """A real node with a server of its own, for the whole session; see ``taskapp.testing.worker.real_worker``."""
    from taskapp.testing.worker import real_worker

    with real_worker(taskapp_app, tmp_path_factory.mktemp("taskapp")) as worker:
        yield worker
