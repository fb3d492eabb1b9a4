"""RabbitMQ as broker: a task that kills its child process is not delivered forever."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import kombu
import kombu.simple
import pytest

from taskapp.queues import DEFAULT_QUEUES
from tests.integration import rabbitmq
from tests.support import Process, RedisServer, clean_environment, eventually, run_python, start_worker

pytestmark = pytest.mark.skipif(not rabbitmq.is_installed(), reason="rabbitmq-server is not installed")

POOLS = pytest.mark.parametrize("options", [(), ("-P", "prefork", "-c", "2")], ids=["own", "prefork"])
LIMIT = 3
PROLOGUE = """
from celery import chain, chord, group
from taskapp.celery import app
from tests.integration.crashing import *
from tests.integration.follow_ups import *
app.finalize()
app.loader.import_default_modules()
def said(result):
    error = result.get(timeout=60, propagate=False)
    return f"{result.state} {type(error).__name__} {error}"
"""


class Site:
    """Nodes and clients of one broker, with results in Redis."""

    def __init__(self, directory: Path, broker_url: str, result_url: str) -> None:
        self._directory, self._broker_url = directory, broker_url
        include = "tests.integration.crashing,tests.integration.follow_ups"
        self.env = {"TASKAPP_RESULT_URL": result_url, "TASKAPP_INCLUDE": include, "TASKAPP_CRASH_LIMIT": str(LIMIT)}
        self._started: list[Process] = []

    def worker(self, *options: str, name: str = "w1", wait: bool = True) -> Process:
        node = start_worker(self._directory, self._broker_url, *options, name=name, wait=wait, **self.env)
        self._started.append(node)
        return node

    def ask(self, code: str) -> str:
        """Run ``code`` as a client would; return what it prints."""
        env = clean_environment(TASKAPP_BROKER_URL=self._broker_url, TASKAPP_DATA_DIR=str(self._directory), **self.env)
        env["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), env.get("PYTHONPATH", "")])
        done = run_python("-c", PROLOGUE + code, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def close(self) -> None:
        for process in self._started:
            process.close()


@pytest.fixture
def site(tmp_path: Path, rabbitmq_url: str, redis_server: RedisServer) -> Iterator[Site]:
    site = Site(tmp_path, rabbitmq_url, redis_server.url)
    yield site
    site.close()


def runs(path: Path) -> int:
    return len(path.read_text().split())


@pytest.mark.quick("crash-own")
@POOLS
@pytest.mark.parametrize("task", ["crash", "exit_child"])
def test_a_task_that_kills_its_child_fails_at_the_limit(
    site: Site, tmp_path: Path, options: tuple[str, ...], task: str
) -> None:
    site.worker(*options)
    path, told = tmp_path / "runs", tmp_path / "told"

    said = site.ask(f"""
result = {task}.apply_async(({str(path)!r},), link_error=tell.s(path={str(told)!r}))
print(said(result))
print(add.delay(1, 2).get(timeout=20))
""").splitlines()

    assert said[0].startswith("FAILURE CrashedTooOften 'tests.integration.crashing.")
    assert "killed the process that ran it too often" in said[0]
    assert said[1] == "3"
    assert runs(path) == LIMIT
    eventually(lambda: told.exists() and told.read_text() == "CrashedTooOften\n")


@POOLS
def test_a_task_whose_request_cannot_start_it_fails_and_holds_no_slot(site: Site, options: tuple[str, ...]) -> None:
    site.worker(*options)

    said = site.ask("""
tasks = [exit_in_request, exit_in_request_on_loop, exit_in_request_early] * 2
for result in [task.delay() for task in tasks]:
    print(said(result))
print(add.delay(1, 2).get(timeout=20))
""").splitlines()

    # Celery's prefork pool reports the start of a run when it is under way.
    ends = ("FAILURE TaskExited", "SUCCESS str ran") if options else "FAILURE TaskExited"
    assert all(line.startswith(ends) for line in said[:-1]), said
    assert said[-1] == "3"


@POOLS
def test_its_chain_does_not_go_on_and_its_chord_fails(site: Site, tmp_path: Path, options: tuple[str, ...]) -> None:
    site.worker(*options)
    path, other, followed = tmp_path / "runs", tmp_path / "other", tmp_path / "followed"

    said = site.ask(f"""
chained = chain(crash.si({str(path)!r}), note.si("on", {str(followed)!r})).apply_async()
whole = chord([add.s(1, 1), crash.si({str(other)!r})])(total.s())
print(said(chained.parent).split()[1], said(whole).split()[1])
""")

    assert said == "CrashedTooOften ChordError"
    assert (runs(path), runs(other)) == (LIMIT, LIMIT)
    assert not followed.exists()


@pytest.mark.quick("own")
@POOLS
def test_a_task_that_crashes_less_often_ends_well(site: Site, tmp_path: Path, options: tuple[str, ...]) -> None:
    site.worker(*options)
    path = tmp_path / "runs"

    assert site.ask(f"print(crash_twice.delay({str(path)!r}).get(timeout=60))") == "survived"
    # The same id again, from the start: what has ended is forgotten.
    again = f"""
result = crash_twice.apply_async(({str(path)!r},), task_id="again")
print(result.get(timeout=60))
"""
    for _ in range(2):
        path.unlink()
        assert site.ask(again) == "survived"
        site.ask("app.AsyncResult('again').forget()")


@POOLS
def test_a_type_that_is_not_given_back_fails_at_its_first_crash(
    site: Site, tmp_path: Path, options: tuple[str, ...]
) -> None:
    site.worker(*options)
    path = tmp_path / "runs"

    assert site.ask(f"print(said(crash_once.delay({str(path)!r})))").startswith("FAILURE WorkerLostError")
    assert runs(path) == 1


def queues_of_docs(delivery_limit: int) -> str:
    """Return the module that the documentation shows for a limit on whole nodes."""
    [module] = re.findall(r"```python\n(from kombu import .*?)```", Path("docs/delivery.md").read_text(), re.DOTALL)
    return module.replace('"x-delivery-limit": 5', f'"x-delivery-limit": {delivery_limit}')


@pytest.fixture
def limited(site: Site, rabbitmq_url: str, tmp_path: Path) -> Iterator[kombu.simple.SimpleQueue]:
    """Give ``site`` quorum queues with a delivery limit; yield the queue of dead letters."""
    (tmp_path / "limited_queues.py").write_text(queues_of_docs(delivery_limit=2))
    site.env["TASKAPP_INCLUDE"] += ",limited_queues"
    site.env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    with kombu.Connection(rabbitmq_url) as connection:
        delete = connection.default_channel.queue_delete
        for name in DEFAULT_QUEUES:
            delete(name)
        dead = connection.SimpleQueue("dead")
        yield dead
        dead.close()
        site.close()  # a node that finds its queue gone would declare it anew, with these arguments
        for name in (*DEFAULT_QUEUES, "dead"):
            delete(name)


def test_its_message_goes_to_a_dead_letter_exchange(
    site: Site, limited: kombu.simple.SimpleQueue, tmp_path: Path
) -> None:
    site.env["TASKAPP_CRASH_LIMIT"] = "2"
    site.worker()

    task_id = site.ask(f"""
result = crash.delay({str(tmp_path / "runs")!r})
assert "CrashedTooOften" in said(result)
print(result.id)
""")

    message = limited.get(timeout=20)
    message.ack()
    assert message.headers["id"] == task_id
    assert message.headers["x-death"][0]["reason"] == "rejected"


def test_a_delivery_limit_holds_for_a_task_that_kills_whole_nodes(
    site: Site, limited: kombu.simple.SimpleQueue, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    task_id = site.ask(f"print(kill_node.delay({str(path)!r}).id)")
    for run in range(1, 4):
        node = site.worker(name=f"w{run}", wait=False)
        node.wait(60)
        assert runs(path) == run

    message = limited.get(timeout=20)
    message.ack()
    assert message.headers["id"] == task_id
    assert message.headers["x-death"][0]["reason"] == "delivery_limit"
