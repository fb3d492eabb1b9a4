"""Unreadable errors, raised anywhere in a task, on every pool: the run is reported, its slot free, the node lives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery

from tests.integration import exiting
from tests.integration.exiting import BROKEN, HEAVY, HOOKS, RECEIVERS
from tests.support import Process, RedisServer, eventually, leased_count, start_worker

SECONDS = 20
KINDS = ("exits.def", "exits.async_hooks", "exits.async", "exits.child")
PLACES = (*HOOKS, *RECEIVERS, "function")
CHEAP = "after_return"
"""The one place that is tried on every pool in each run of the tests."""
OTHER_POOLS = ("prefork", "threads", "gevent", "solo")


def _cases() -> Iterator[object]:
    for kind in KINDS:
        for place in PLACES:
            is_slow = kind == "exits.child" and place not in (CHEAP, "function")
            yield pytest.param("own", kind, place, id=f"own {kind} {place}", marks=pytest.mark.slow if is_slow else ())
    for pool in OTHER_POOLS:
        for place in PLACES:
            marks = () if place == CHEAP else pytest.mark.slow
            yield pytest.param(pool, "exits.def", place, id=f"{pool} {place}", marks=marks)
        marks = () if pool == "prefork" else pytest.mark.slow
        yield pytest.param(pool, "exits.async", "function", id=f"{pool} coroutine", marks=marks)
        yield pytest.param(pool, "exits.async_hooks", "on_success", id=f"{pool} coroutine of a hook", marks=marks)


@pytest.fixture(scope="module")
def nodes(session_server: RedisServer, _web_process: Celery) -> Iterator[dict[str, Process]]:
    running: dict[str, Process] = {}
    yield running
    for worker in running.values():
        worker.close()
    session_server.client.flushall()


@pytest.fixture
def start(
    nodes: dict[str, Process], session_server: RedisServer, _web_process: Celery,
    tmp_path_factory: pytest.TempPathFactory,
) -> object:  # fmt: skip
    """Start the worker of a pool at its first use, in place of the one before: all of them take the same queue."""

    def start(pool: str) -> tuple[Process, Celery]:
        if pool not in nodes:
            for other in tuple(nodes):
                nodes.pop(other).close()
            nodes[pool] = start_worker(
                tmp_path_factory.mktemp(pool), session_server.url, *(() if pool == "own" else ("-P", pool)),
                "-c", "2", "-Q", "default", name=f"broken-{pool}", TASKAPP_INCLUDE=exiting.__name__,
                TASKAPP_CHILD_PROCESSES="1", TASKAPP_LEASE_SECONDS="3",
            )  # fmt: skip
            nodes[pool].outlives_test = True
        _web_process.set_current()
        return nodes[pool], _web_process

    return start


@pytest.mark.parametrize(("pool", "kind", "place"), [*_cases()])
def test_an_error_that_cannot_be_read_is_told_and_ends_nothing(
    pool: str, kind: str, place: str, start, session_server: RedisServer
) -> None:
    node, app = start(pool)
    results = {
        error: app.signature(kind, (place, error), queue="default").apply_async() for error in BROKEN
    }  # fmt: skip

    for error, result in results.items():
        outcome = result.get(timeout=SECONDS, propagate=False)
        if place in ("function", "before_start"):
            assert result.state == "FAILURE", error
        elif place in ("on_failure", "task_failure"):
            assert repr(outcome) == "ValueError('its own')", error
        else:
            assert outcome == "done", error
        ran = session_server.client.llen(f"ran:{result.id}")
        assert ran == {"before_start": 0, "on_retry": 2, "task_retry": 2}.get(place, 1), error
    assert node.returncode is None
    eventually(lambda: leased_count(session_server) == 0)


@pytest.mark.quick("own-*-function-*", "own-exits.async-*-Slow")
@pytest.mark.parametrize("error", HEAVY)
@pytest.mark.parametrize("place", ["function", "before_start", "on_success", "task_success", "after_return"])
@pytest.mark.parametrize(
    ("pool", "kind"),
    [
        *(("own", kind) for kind in KINDS),
        *(pytest.param(pool, "exits.def", marks=pytest.mark.slow) for pool in OTHER_POOLS),
    ],
)
def test_an_error_whose_text_is_much_is_read_once(
    pool: str, kind: str, place: str, error: str, start, session_server: RedisServer
) -> None:
    node, app = start(pool)
    session_server.client.delete("read")

    result = app.signature(kind, (place, error), queue="default").apply_async()

    outcome = result.get(timeout=SECONDS, propagate=False)
    eventually(lambda: leased_count(session_server) == 0)
    assert (result.state == "FAILURE") == (place in ("function", "before_start"))
    assert result.state == "SUCCESS" or ("was raised, whose text t" in str(outcome) and "fix its class" in str(outcome))
    assert session_server.client.get("read") == "1"
    assert node.returncode is None


@pytest.mark.parametrize("name", ["returns.unencodable", "returns.unencodable.early"])
@pytest.mark.parametrize("pool", ["own", *(pytest.param(pool, marks=pytest.mark.slow) for pool in OTHER_POOLS)])
def test_a_result_whose_encoding_exits_is_told(pool: str, name: str, start, session_server: RedisServer) -> None:
    node, app = start(pool)
    result = app.signature(name, queue="default").apply_async()

    result.get(timeout=SECONDS, propagate=False)

    assert result.state == "FAILURE"
    assert node.returncode is None
    eventually(lambda: leased_count(session_server) == 0)


@pytest.mark.parametrize(
    "pool", ["threads", *(pytest.param(pool, marks=pytest.mark.slow) for pool in ("own", "gevent"))]
)
def test_a_result_that_cannot_be_stored_leaves_no_task_active(pool: str, start, session_server: RedisServer) -> None:
    """They were acknowledged as they began; no message ends them."""
    _, app = start(pool)
    for number in range(3):
        session_server.client.rpush(f"celery-task-meta-unstorable{number}", "no result")
        app.signature("ends.early", queue="default").apply_async(task_id=f"unstorable{number}")

    assert app.signature("ends.early", queue="default").apply_async().get(timeout=SECONDS) == "done"
    eventually(lambda: [*app.control.inspect(timeout=1).active().values()] == [[]])
