"""Whatever a task, hook, receiver or child task raises: the node lives, the run is reported, other tasks run once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest
from celery import Celery
from celery.utils.nodenames import gethostname

from tests.integration import exiting
from tests.integration.exiting import CALLBACKS, ERRORS, FORKS, HOOKS, RECEIVERS
from tests.support import Process, RedisServer, eventually, leased_count, start_worker

SECONDS = 15
QUEUES = {"own": "default", "prefork": "low", "threads": "high", "solo": "critical"}
KINDS = {
    "own": ("exits.def", "exits.async_hooks", "exits.async", "exits.child"),
    **dict.fromkeys(("prefork", "threads", "solo"), ("exits.def", "exits.async_hooks", "exits.async")),
}


@dataclass
class Pool:
    """One worker with the pool of this name."""

    name: str
    node: Process
    server: RedisServer
    app: Celery

    def send(self, task: str, *args: str) -> object:
        return self.app.signature(task, args, queue=QUEUES[self.name]).apply_async()

    def runs(self, task_id: str) -> list[str]:
        return self.server.client.lrange(f"ran:{task_id}", 0, -1)

    def lives(self) -> bool:
        return self.node.returncode is None


@pytest.fixture(scope="module")
def started(
    session_server: RedisServer, _web_process: Celery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Process]]:
    running: dict[str, Process] = {}
    yield running
    for worker in running.values():
        worker.close()
    session_server.client.flushall()


@pytest.fixture(params=[(pool, kind) for pool, kinds in KINDS.items() for kind in kinds], ids=" ".join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def start(
    started: dict[str, Process], session_server: RedisServer, _web_process: Celery,
    tmp_path_factory: pytest.TempPathFactory,
) -> object:  # fmt: skip
    """Start the worker of a pool at its first use."""

    def start(name: str) -> Pool:
        if name not in started:
            started[name] = start_worker(
                tmp_path_factory.mktemp(name), session_server.url, *(() if name == "own" else ("-P", name)),
                "-Q", QUEUES[name], name=name, TASKAPP_INCLUDE=exiting.__name__, TASKAPP_CHILD_PROCESSES="1",
                TASKAPP_LEASE_SECONDS="3",
            )  # fmt: skip
            started[name].outlives_test = True
        _web_process.set_current()
        return Pool(name, started[name], session_server, _web_process)

    return start


@pytest.mark.quick(
    "own exits.def-*",
    "own exits.async-*",
    "own exits.child-function",
    "own exits.child-on_failure",
    "prefork exits.def-*",
    "*-function",
)
@pytest.mark.parametrize("place", [*HOOKS, *RECEIVERS, "function"])
def test_what_is_raised_ends_neither_the_node_nor_the_run(way: tuple[str, str], place: str, start) -> None:
    name, kind = way
    pool = start(name)
    results = {error: pool.send(kind, place, error) for error in ERRORS}

    for error, result in results.items():
        outcome = repr(result.get(timeout=SECONDS, propagate=False))
        has_children = name == "prefork" or kind == "exits.child"
        if place in ("function", "before_start"):
            if place == "function" and error == "SystemExit" and has_children:
                # It ends its child, as docs/worker.md says.
                assert outcome.startswith(("CrashedTooOften", "WorkerLostError")), (error, outcome)
            else:
                assert outcome.startswith(("TaskExited", "CoroutineCancelled")), (error, outcome)
                assert len(pool.runs(result.id)) == (place == "function"), error
            continue
        failed, retried = place in ("on_failure", "task_failure"), place in ("on_retry", "task_retry")
        assert outcome == ("ValueError('its own')" if failed else "'done'"), error
        assert pool.runs(result.id) == (["0", "1"] if retried else ["0"]), error
    assert pool.lives()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("errback", ["errback.def", "errback.async"])
def test_an_errback_that_exits_costs_itself_alone(name: str, errback: str, start) -> None:
    pool = start(name)
    app, told = pool.app, pool.server.client

    for failing in ("fails", "fails.child") if name == "own" else ("fails",):
        for error in ERRORS:
            wanted = app.signature(failing, queue=QUEUES[name])
            result = wanted.apply_async(link_error=app.signature(errback, (error,)))
            outcome = repr(result.get(timeout=SECONDS, propagate=False))
            assert outcome == "ValueError('its own')", (failing, error)
            eventually(lambda id=result.id: told.lrange(f"told:{id}", 0, -1) == ["ValueError('its own')"])
            assert pool.runs(result.id) == ["0"], (failing, error)
    assert pool.lives()


@pytest.mark.parametrize("name", KINDS)
def test_an_exit_on_the_loop_ends_neither_the_node_nor_what_runs_there(name: str, start) -> None:
    pool = start(name)
    beside = [pool.send("neighbour") for _ in range(2 if name == "own" else 1)]

    for error in ERRORS:
        for what in ("task", "callback", "gather", "group"):
            result = pool.send(f"leaves.{what}", error)
            outcome = repr(result.get(timeout=SECONDS, propagate=False))
            if what in ("task", "callback"):
                assert outcome == "'done'", (what, error)
            elif error == "CancelledError":
                # To those two the cancellation of a child is no error.
                assert outcome.startswith(("'done'", "CoroutineCancelled")), (what, error, outcome)
            else:
                ended = ("CrashedTooOften", "WorkerLostError") if name == "prefork" else ()
                assert outcome.startswith(("TaskExited", *ended)), (what, error, outcome)

    assert [one.get(timeout=SECONDS) for one in beside] == ["done"] * len(beside)
    assert [pool.runs(one.id) for one in beside] == [["0"]] * len(beside)
    assert pool.lives()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("how", ["returns", "exits", "raises", "waits", "waits for ever"])
def test_a_task_that_forks_leaves_no_process_behind(name: str, how: str, start) -> None:
    pool = start(name)
    if how.startswith("waits"):
        kinds = ["forks.async"] if name in ("own", "threads") else []
    else:
        kinds = ["forks.def", "forks.async", *(["forks.child"] if name == "own" else [])]
    pool.server.client.delete("forked")

    results = [pool.send(kind, how) for kind in kinds]

    assert [result.get(timeout=SECONDS) for result in results] == ["parent"] * len(kinds)
    assert [pool.runs(result.id) for result in results] == [["0"]] * len(kinds)
    assert pool.server.client.llen("ran in a child") == 0
    for pid in map(int, pool.server.client.lrange("forked", 0, -1)):
        eventually(lambda pid=pid: _is_gone(pid))
    assert pool.lives()
    eventually(lambda: leased_count(pool.server) == 0)


@pytest.mark.quick("own *", "prefork exits.def-*")
@pytest.mark.parametrize("place", [*HOOKS, *RECEIVERS])
def test_a_hook_or_receiver_that_forks_runs_nothing_twice(way: tuple[str, str], place: str, start) -> None:
    name, kind = way
    pool = start(name)
    pool.server.client.delete("forked")

    result = pool.send(kind, place, FORKS)

    failed, retried = place in ("on_failure", "task_failure"), place in ("on_retry", "task_retry")
    outcome = repr(result.get(timeout=SECONDS, propagate=False))
    assert outcome == ("ValueError('its own')" if failed else "'done'")
    assert pool.server.client.llen("forked") > 0
    for pid in map(int, pool.server.client.lrange("forked", 0, -1)):
        eventually(lambda pid=pid: _is_gone(pid))
    assert pool.runs(result.id) == (["0", "1"] if retried else ["0"])
    assert pool.lives()
    eventually(lambda: leased_count(pool.server) == 0)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("place", CALLBACKS)
def test_a_request_class_that_exits_fails_its_task_and_holds_no_slot(name: str, place: str, start) -> None:
    pool = start(name)
    kinds = ["requests.def", *(["requests.child"] if name == "own" else [])]
    if place == "on_timeout" and name in ("threads", "solo"):
        pytest.skip("these pools have no time limits")

    results = {(kind, error): pool.send(kind, place, error) for kind in kinds for error in ERRORS}

    for what, result in results.items():
        assert isinstance(result.get(timeout=SECONDS, propagate=False), Exception), what
    beside = [pool.send("neighbour") for _ in range(3)]
    assert [one.get(timeout=SECONDS) for one in beside] == ["done"] * 3
    assert pool.lives()
    eventually(lambda: leased_count(pool.server) == 0)


@pytest.mark.parametrize("name", KINDS)
def test_a_task_that_rewrites_its_request_still_fails_under_its_own_id(name: str, start) -> None:
    pool = start(name)

    for kind in ("def", "async", *(["child"] if name == "own" else [])):
        result = pool.send(f"rewrites.{kind}")
        assert isinstance(result.get(timeout=SECONDS, propagate=False), Exception), kind
    assert pool.lives()
    eventually(lambda: leased_count(pool.server) == 0)


@pytest.mark.parametrize("name", KINDS)
def test_a_command_that_exits_ends_no_node(name: str, start) -> None:
    pool = start(name)
    control, node = pool.app.control, {f"{name}@{gethostname()}"}

    for error in ERRORS:
        answers = control.broadcast("exit_in_command", arguments={"error": error}, reply=True, timeout=5, limit=1,
                                    destination=list(node))  # fmt: skip
        assert [list(answer) for answer in answers] == [list(node)], error
        result = pool.send("requests.def", "info", error)
        eventually(lambda id=result.id: pool.app.AsyncResult(id).state != "PENDING")
        control.inspect(timeout=0.5, destination=list(node)).active()
        assert result.get(timeout=SECONDS) == "done", error
    assert pool.lives()


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
