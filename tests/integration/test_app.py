from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery

from taskapp.errors import (
    BrokerUnavailable,
    InvalidPayload,
    PayloadTooLarge,
    SubmitOutcomeUnknown,
    UnknownQueue,
    UnknownTask,
)
from taskapp.queues import DEFAULT_QUEUES
from taskapp.redis.keys import Keys
from tests.integration import shop
from tests.support import Node, Process, RedisServer, clean_environment, eventually, leased_count, run_python

pytestmark = pytest.mark.usefixtures("app")
SHOP = "tests.integration.shop"
StartWorker = Callable[..., Process]


def test_a_web_process_submits_and_gets_the_result(worker: StartWorker) -> None:
    from taskapp.tasks import add

    worker()

    assert add.delay(2, 3).get(timeout=20) == 5


def test_plain_shared_tasks_of_a_user_run_from_any_thread(worker: StartWorker) -> None:
    worker(TASKAPP_INCLUDE=SHOP)
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(shop.greet.delay(str(n)).get(timeout=20))) for n in range(4)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [f"hello {n}" for n in range(4)]


def test_parent_and_child_submit_after_a_fork(worker: StartWorker) -> None:
    """What gunicorn's preload and uwsgi do: the master has used its connections when it forks."""
    worker()
    script = textwrap.dedent("""
        import os, sys
        from taskapp.tasks import add
        assert add.delay(0, 0).get(timeout=20) == 0
        children = [os.fork() or os._exit(not all(add.delay(n, i).get(timeout=20) == n + i for i in range(30)))
                    for n in range(3)]
        assert all(add.delay(9, i).get(timeout=20) == 9 + i for i in range(30))
        sys.exit(sum(os.waitpid(pid, 0)[1] for pid in children))
    """)

    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_queues_and_priorities_are_taken_in_strict_order(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path
) -> None:
    worker("-c", "1", TASKAPP_INCLUDE=SHOP, TASKAPP_STARVATION_GUARD="0")
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    shop.hold.apply_async((str(gate),), queue="critical", priority=9)
    eventually(lambda: leased_count(redis_server) == 1)
    sent = [(queue, priority) for queue in DEFAULT_QUEUES for priority in range(10)] * 3
    random.Random(7).shuffle(sent)
    sent = sent[:100]

    for queue, priority in sent:
        shop.note.apply_async((f"{queue} {priority}", str(ran)), queue=queue, priority=priority)
    waiting = sum(redis_server.client.llen(Keys().ready(q, p)) for q in DEFAULT_QUEUES for p in range(10))
    gate.touch()
    eventually(lambda: ran.exists() and len(ran.read_text().splitlines()) == len(sent))

    assert waiting == len(sent)
    expected = sorted(sent, key=lambda message: (DEFAULT_QUEUES.index(message[0]), -message[1]))
    assert ran.read_text().splitlines() == [f"{queue} {priority}" for queue, priority in expected]


def test_what_cannot_work_is_refused_at_the_caller(app: Celery, redis_server: RedisServer) -> None:
    from taskapp.tasks import add

    refusals: list[tuple[type[Exception], Callable[[], object], str]] = [
        (InvalidPayload, lambda: shop.pay.delay({"ident": 1}), "shop.pay': order.id: field required"),
        (InvalidPayload, lambda: shop.pay.s(order={"id": "x"}), "order.id: input should be a valid integer"),
        (InvalidPayload, lambda: add.delay("x", 1), "invalid arguments for 'taskapp.add': x"),
        (InvalidPayload, lambda: shop.greet.delay(object()), "is not JSON serializable; only values that JSON can"),
        (TypeError, lambda: add.delay(1), "missing 1 required positional argument: 'y'"),
        (UnknownQueue, lambda: add.apply_async((1, 2), queue="hihg"), "no queue named 'hihg'; did you mean 'high'"),
        (UnknownTask, lambda: app.send_task("taskapp.ad", (1, 2)), "did you mean 'taskapp.add'"),
        (PayloadTooLarge, lambda: shop.greet.delay("x" * 2_000_000), "more than the limit of 1048576; pass a path"),
    ]  # fmt: skip

    for error, submit, sentence in refusals:
        with pytest.raises(error, match=re.compile(sentence)):
            submit()
    assert redis_server.client.llen(Keys().ready("default")) == 0


def test_a_model_reaches_the_task_and_comes_back_as_json(worker: StartWorker) -> None:
    worker(TASKAPP_INCLUDE=SHOP)

    assert shop.pay.delay(shop.Order(id=3)).get(timeout=20) == {"id": 3, "note": "Order"}
    assert shop.refund.delay(shop.Order(id=4)).get(timeout=20) == ["Order", 4, 0]


def test_a_parents_bad_result_fails_the_follow_up_alone(worker: StartWorker) -> None:
    from taskapp.tasks import add

    worker(TASKAPP_INCLUDE=SHOP)
    result = (add.s(1, 2) | shop.pay.s()).apply_async()

    with pytest.raises(InvalidPayload, match="order: input should be a valid dictionary or instance of Order"):
        result.get(timeout=20)
    assert result.parent.get(timeout=20) == 3


def test_retries_until_it_works_and_logs_the_last_failure_once(worker: StartWorker) -> None:
    node = worker(TASKAPP_INCLUDE=SHOP)

    assert shop.unsteady.delay(2).get(timeout=20) == 2
    failing = shop.unsteady.delay(9)
    with pytest.raises(ValueError, match="failure 3"):
        failing.get(timeout=20)

    errors = eventually(lambda: [line for line in node.output().splitlines() if " ERROR " in line])
    assert len(errors) == 1
    assert f"[{shop.unsteady.name} {failing.id} queue=default attempt=3]" in errors[0]


def test_a_permanent_error_runs_once_even_when_everything_is_retried(worker: StartWorker, tmp_path: Path) -> None:
    from taskapp.errors import PermanentError

    worker(TASKAPP_INCLUDE=SHOP)

    with pytest.raises(PermanentError, match="no such customer"):
        shop.hopeless.delay(str(tmp_path / "ran")).get(timeout=20)
    assert (tmp_path / "ran").read_text() == "ran\n"


def objects_of(process: Process) -> list[dict[str, Any]]:
    """What a log consists of, from where it is set up on: warnings about root come earlier."""
    lines = process.output().splitlines()
    return [json.loads(line) for line in lines[next(n for n, line in enumerate(lines) if line[:1] == "{") :]]


def test_json_logs_name_task_and_id(worker: StartWorker) -> None:
    node = worker(TASKAPP_INCLUDE=SHOP, TASKAPP_LOG_FORMAT="json")
    result = shop.pay.delay({"id": 1})
    result.get(timeout=20)

    records = objects_of(node)
    paying = next(record for record in records if record["message"] == "paying")
    assert (paying["task_id"], paying["task_type"], paying["attempt"]) == (result.id, shop.pay.name, 1)


def test_beat_writes_json_alone_too(redis_server: RedisServer, tmp_path: Path) -> None:
    environment = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_LOG_FORMAT="json", TASKAPP_DATA_DIR=str(tmp_path)
    )
    argv = [sys.executable, "-m", "celery", "-A", "taskapp", "beat", "-l", "INFO"]
    beat = Node(argv, tmp_path / "beat.log", environment)
    try:
        eventually(lambda: "beat: Starting" in beat.output() or None)
    finally:
        beat.close()

    assert all(record["message"] for record in objects_of(beat))


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_the_death_of_a_child_process_is_a_line_like_any_other(worker: StartWorker, log_format: str) -> None:
    node = worker("-P", "prefork", "-c", "1", TASKAPP_INCLUDE=SHOP, TASKAPP_LOG_FORMAT=log_format)
    shop.pay.delay({"id": 1}).get(timeout=20)
    psutil.Process(node.pid).children()[0].kill()
    eventually(lambda: "exited with 'signal 9 (SIGKILL)'" in node.output() or None)

    lines = [line for line in node.output().splitlines() if "exited with 'signal 9" in line]
    if log_format == "text":
        assert all(re.match(r"\d{4}-\d\d-\d\d \S+ ERROR   MainProcess Process 'Fork", line) for line in lines)
    else:
        records = objects_of(node)
        died = next(record for record in records if "exited with" in record["message"])
        assert (died["level"], died["logger"]) == ("ERROR", "multiprocessing")


@pytest.mark.parametrize("how", ["dead", "frozen"])
def test_a_broker_that_does_not_answer_is_an_error_within_five_seconds(redis_server: RedisServer, how: str) -> None:
    from taskapp.tasks import add

    add.delay(1, 1)
    if how == "dead":
        redis_server.kill()
    else:
        redis_server.freeze()

    # The first submit finds the connection open and a server that takes it in and says nothing.
    unknown = pytest.raises(SubmitOutcomeUnknown, match=r"may or may not be queued: submit it again with the same")
    refused = pytest.raises(BrokerUnavailable, match=r"the broker did not accept 'taskapp\.add' .* it is not queued")
    for expected in [refused if how == "dead" else unknown, refused]:
        started = time.monotonic()
        with expected:
            add.delay(1, 2)
        assert time.monotonic() - started < 15  # a busy machine's time on top


def test_no_broker_at_all_lists_the_ways_out(tmp_path: Path) -> None:
    environment = clean_environment(TASKAPP_DATA_DIR=str(tmp_path / "empty"), PYTHONPATH=str(Path.cwd()))
    code = "from taskapp.tasks import add; add.delay(1, 2)"

    done = run_python("-c", code, env=environment)

    assert "taskapp.errors.BrokerNotFound: no Redis was found; do one of these:" in done.stderr
    assert "TASKAPP_BROKER_URL" in done.stderr


def test_a_task_is_a_function_where_there_is_no_broker(tmp_path: Path) -> None:
    environment = clean_environment(TASKAPP_DATA_DIR=str(tmp_path / "empty"), PYTHONPATH=str(Path.cwd()))
    code = "from taskapp.tasks import add; print(add(1, 2), add.run(3, 4))"

    done = run_python("-c", code, env=environment)

    assert done.stdout == "3 7\n", done.stderr


def test_a_web_process_older_than_the_server_finds_it(redis_server: RedisServer, tmp_path: Path) -> None:
    environment = clean_environment(TASKAPP_DATA_DIR=str(tmp_path / "data"), PYTHONPATH=str(Path.cwd()))
    code = textwrap.dedent("""
        from taskapp import devredis
        from taskapp.errors import BrokerNotFound
        from taskapp.settings import get_settings
        from taskapp.tasks import add
        try:
            add.delay(1, 2)
        except BrokerNotFound:
            devredis.ensure(get_settings().data_dir)
        try:
            print(bool(add.delay(1, 2).id), add.delay(1, 2).state)
        finally:
            devredis.stop(get_settings().data_dir)
    """)

    done = run_python("-c", code, env=environment)

    assert done.stdout == "True PENDING\n", done.stderr


def test_a_wrong_setting_stops_a_worker_with_one_sentence(tmp_path: Path) -> None:
    environment = clean_environment(TASKAPP_BROKER_URI="redis://x", PYTHONPATH=str(Path.cwd()))

    done = run_python("-m", "celery", "-A", "taskapp", "worker", env=environment, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr == "Error: unknown setting TASKAPP_BROKER_URI; did you mean TASKAPP_BROKER_URL?\n"
