"""Tasks that overwrite their ``self.request``: each is told under its own id, on every broker; the node lives."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.integration import damaging, rabbitmq
from tests.integration.damaging import FIELDS, PLACES, VALUES
from tests.support import Process, RedisServer, clean_environment, leased_count, run_python, start_worker

SUBMIT = """
import json, time
from itertools import product
from taskapp.celery import app
from tests.integration.damaging import VALUES
app.loader.import_default_modules()
task = app.tasks["damages.{place}"]
results = {{" ".join(what): task.apply_async(what) for what in product({fields}, VALUES, ("returns", "raises"))}}
until = time.monotonic() + 25
def is_ready(result):
    return app.backend.get_state(result.id) in ("SUCCESS", "FAILURE")
while time.monotonic() < until and not all(map(is_ready, results.values())):
    time.sleep(0.1)
print(json.dumps({{what: app.backend.get_state(result.id) for what, result in results.items()}}))
"""
Start = Callable[[str], tuple[Process, dict[str, str]]]


@pytest.fixture
def start(tmp_path: Path, redis_server: RedisServer, request: pytest.FixtureRequest) -> Iterator[Start]:
    started: list[Process] = []

    def start(broker: str) -> tuple[Process, dict[str, str]]:
        env = {"TASKAPP_INCLUDE": damaging.__name__, "TASKAPP_CHILD_PROCESSES": "1"}
        url = redis_server.url
        if broker == "rabbitmq":
            if not rabbitmq.is_installed():
                pytest.skip("rabbitmq-server is not installed")
            url, env["TASKAPP_RESULT_URL"] = request.getfixturevalue("rabbitmq_url"), redis_server.url
        started.append(start_worker(tmp_path, url, "-c", "4", **env))
        return started[0], clean_environment(TASKAPP_BROKER_URL=url, TASKAPP_DATA_DIR=str(tmp_path), **env)

    yield start
    for process in started:
        process.close()


@pytest.mark.quick("redis-def", "rabbitmq-def")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_task_that_damages_its_request_is_told_under_its_own_id(
    broker: str, place: str, start: Start, redis_server: RedisServer
) -> None:
    node, env = start(broker)
    fields = ("id", "properties", "delivery_info", "everything") if place == "child" else FIELDS
    env["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), env.get("PYTHONPATH", "")])

    done = run_python("-c", SUBMIT.format(place=place, fields=fields), env=env)

    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)
    assert set(states) == {" ".join(what) for what in product(fields, VALUES, ("returns", "raises"))}
    untold = {what for what, state in states.items() if state not in ("SUCCESS", "FAILURE")}
    assert not untold
    wrong = {what for what, state in states.items() if what.endswith("raises") and state == "SUCCESS"}
    assert not wrong
    assert node.returncode is None
    assert leased_count(redis_server) == 0
