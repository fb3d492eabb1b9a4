"""The last log lines of each task: captured whatever runs it, bounded, and followed until it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery

from taskapp.monitor.task_state import State, log_lines, task_state
from tests.integration import shop, watched
from tests.integration.test_task_state import WATCHED, becomes, taskapp
from tests.support import Node, Process, RedisServer, clean_environment, eventually

pytestmark = pytest.mark.usefixtures("app")
StartWorker = Callable[..., Process]


def texts(task_id: str) -> list[str]:
    return [line.text for line in log_lines(task_id)]


@pytest.fixture
def follow(redis_server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start ``taskapp task logs -f``."""
    started: list[Process] = []

    def start(task_id: str, *options: str) -> Process:
        argv = [sys.executable, "-m", "taskapp", "task", "logs", "-f", task_id, *options]
        log = tmp_path / f"follow-{len(started)}.log"
        started.append(Node(argv, log, clean_environment(TASKAPP_BROKER_URL=redis_server.url), Path.cwd()))
        return started[-1]

    yield start
    for process in started:
        process.kill()


# --- what is captured -----------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["", "prefork", "threads", "solo"])
def test_lines_are_kept_from_every_pool_however_they_are_written(worker: StartWorker, pool: str) -> None:
    worker(*(["-P", pool] if pool else []), TASKAPP_INCLUDE=WATCHED)

    result = watched.talk.delay("")
    result.get(timeout=20)
    eventually(lambda: "talk: over" in texts(result.id))

    lines = log_lines(result.id)
    assert [line.text.splitlines()[0] for line in lines] == [
        "talk: plain", "talk: by Celery's logger", "talk: printed", "talk: failed", "talk: over",
    ]  # fmt: skip
    assert [line.level for line in lines] == ["INFO", "WARNING", "WARNING", "ERROR", "INFO"]
    assert lines[3].text.endswith("ValueError: inside")
    assert all(abs(line.at - time.time()) < 60 and line.attempt == 1 for line in lines)


def test_each_line_is_its_own_tasks_also_with_many_on_one_loop_and_in_child_processes(
    worker: StartWorker, tmp_path: Path
) -> None:
    worker("-c", "4", TASKAPP_INCLUDE=WATCHED, TASKAPP_CHILD_PROCESSES="1")
    go = str(tmp_path / "go")
    soft = {name: watched.talk_softly.delay(go, name) for name in (f"soft{n}" for n in range(20))}
    hard = {name: watched.talk.delay(go, name) for name in ("hard0", "hard1")}
    child = {"child": watched.talk_in_child.delay(go, "child")}
    for name, result in {**soft, **hard, **child}.items():
        eventually(lambda r=result, n=name: any(text.startswith(n) for text in texts(r.id)))
    (tmp_path / "go").touch()

    for name, result in {**soft, **hard, **child}.items():
        result.get(timeout=30)
        count = 3 if name.startswith("soft") else 5
        eventually(lambda r=result, c=count: len(texts(r.id)) == c)
        assert all(text.startswith(f"{name}: ") for text in texts(result.id))


def test_what_the_worker_says_of_a_task_is_not_kept(worker: StartWorker, redis_server: RedisServer) -> None:
    node = worker(TASKAPP_INCLUDE=WATCHED)
    result = watched.quick.delay()
    failed = watched.fail.delay()
    becomes(failed.id, State.DEAD)
    watched.talk.delay("").get(timeout=20)
    eventually(lambda: redis_server.client.zcard("taskapp:task_logs"))

    assert f"{result.id}] succeeded" in node.output()
    assert (texts(result.id), texts(failed.id)) == ([], [])
    assert redis_server.client.zcard("taskapp:task_logs") == 1


def test_nothing_is_kept_when_it_is_switched_off(worker: StartWorker, redis_server: RedisServer) -> None:
    node = worker(TASKAPP_INCLUDE=WATCHED, TASKAPP_TASK_LOG_LINES="0")

    watched.talk.delay("").get(timeout=20)
    watched.race.delay(1).get(timeout=20)
    eventually(lambda: list(redis_server.client.scan_iter("taskapp:task:*")))

    assert not redis_server.client.exists("taskapp:task_logs")
    assert "talk: plain" in node.output()


# --- bounds ---------------------------------------------------------------------------------------


def test_the_last_lines_are_kept_each_in_a_bounded_length(worker: StartWorker, redis_server: RedisServer) -> None:
    worker(TASKAPP_INCLUDE=WATCHED, TASKAPP_TASK_LOG_LINES="20")

    result = watched.flood.delay(3_000, 10)
    wide = watched.flood.delay(5, 100_000)
    eventually(lambda: texts(result.id)[-1:] == ["002999" + "x" * 10])
    eventually(lambda: len(texts(wide.id)) == 5)

    assert [int(text[:6]) for text in texts(result.id)] == list(range(2_980, 3_000))
    assert all(len(text.encode()) <= 2_048 and " [...] " in text for text in texts(wide.id))
    assert 0 < redis_server.client.ttl(f"taskapp:task:{result.id}:log") <= 86_400
    assert redis_server.client.memory_usage(f"taskapp:task:{wide.id}:log") < 200_000


def test_a_flood_holds_up_neither_tasks_nor_redis(worker: StartWorker, redis_server: RedisServer) -> None:
    node = worker("-c", "2", TASKAPP_INCLUDE=WATCHED, TASKAPP_TASK_LOG_LINES="10000")
    redis_server.client.config_set("slowlog-log-slower-than", 50_000)
    redis_server.client.slowlog_reset()
    floods = [watched.flood.delay(30_000, 1_000) for _ in range(2)]

    assert watched.quick.delay().get(timeout=60) == 1
    for flood in floods:
        flood.get(timeout=120)
    eventually(lambda: texts(floods[0].id)[-1:] == ["029999" + "x" * 1_000])

    assert "log lines of tasks: too many at once" in node.output()
    assert redis_server.client.memory_usage(f"taskapp:task:{floods[0].id}:log") < 400_000
    slow = [one for one in redis_server.client.slowlog_get(50) if "EVALSHA" in str(one["command"])]
    assert len(slow) <= 2


def test_logs_of_the_ten_thousandth_task_before_are_dropped(redis_server: RedisServer, app: Celery) -> None:
    notes = app.open_notes()
    line = json.dumps({"at": 1.0, "level": "INFO", "text": "x", "attempt": 1}).encode()
    for start in range(0, 10_050, 150):
        notes.write("me", start, [("L", f"t{n:05}", line) for n in range(start, start + 150)], 200)

    assert redis_server.client.zcard("taskapp:task_logs") == 10_000
    kept = len(list(redis_server.client.scan_iter("taskapp:task:*:log", count=1_000)))
    assert kept == 10_000
    assert not notes.lines("t00000")
    assert notes.lines("t10049")


def test_a_batch_that_is_repeated_is_written_once(app: Celery) -> None:
    notes = app.open_notes()
    line = json.dumps({"at": 1.0, "level": "INFO", "text": "x", "attempt": 1}).encode()

    for number in (1, 1, 2, 2):
        notes.write("me", number, [("L", "a", line)], 200)

    assert len(notes.lines("a")) == 2


# --- following ------------------------------------------------------------------------------------


def test_following_shows_lines_as_they_come_and_ends_when_the_task_does(
    worker: StartWorker, follow: Callable[..., Process], tmp_path: Path
) -> None:
    result = watched.count_slowly.delay(str(tmp_path / "go"))
    reader, machine = follow(result.id), follow(result.id, "--json")
    worker(TASKAPP_INCLUDE=WATCHED)

    eventually(lambda: "line 30" in reader.output())
    assert reader.returncode is None
    (tmp_path / "go").touch()
    count = result.get(timeout=20)

    assert (reader.wait(20), machine.wait(20)) == (0, 0)
    numbers = [int(line.split()[-1]) for line in reader.output().splitlines()]
    assert numbers == list(range(count))
    assert [json.loads(line)["text"] for line in machine.output().splitlines()] == [f"line {n}" for n in range(count)]


def test_following_ends_for_a_task_whose_result_is_ignored(worker: StartWorker, follow: Callable[..., Process]) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    result = watched.talk.apply_async(("",), ignore_result=True)
    eventually(lambda: "talk: over" in texts(result.id))

    reader = follow(result.id)

    assert reader.wait(20) == 0
    assert reader.output().count("talk: ") == 5
    state = task_state(result.id)
    assert (state.state, state.log_lines) == (State.UNKNOWN, 5)
    assert "show that it ran" in state.remark


def test_lines_written_while_redis_restarts_are_not_lost(
    worker: StartWorker, redis_server: RedisServer, follow: Callable[..., Process], tmp_path: Path
) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    result = watched.count_slowly.delay(str(tmp_path / "go"))
    reader = follow(result.id)
    eventually(lambda: "line 10" in reader.output())

    redis_server.stop()
    time.sleep(1.0)
    redis_server.start()
    seen = len(reader.output().splitlines())
    eventually(lambda: len(reader.output().splitlines()) > seen + 60)
    (tmp_path / "go").touch()
    count = result.get(timeout=40)

    assert reader.wait(30) == 0
    assert [int(line.split()[-1]) for line in reader.output().splitlines()] == list(range(count))


def test_a_full_redis_refuses_lines_and_lets_tasks_run(worker: StartWorker, redis_server: RedisServer) -> None:
    node = worker(TASKAPP_INCLUDE=WATCHED)
    watched.quick.delay().get(timeout=20)
    result = watched.talk.apply_async(("",), countdown=1)
    redis_server.client.config_set("maxmemory", 1)
    try:
        eventually(lambda: result.state == "SUCCESS")
        eventually(lambda: "notes on tasks were refused" in node.output())
    finally:
        redis_server.client.config_set("maxmemory", 0)

    watched.talk.delay("", "later").get(timeout=20)
    assert node.returncode is None


# --- what people read -----------------------------------------------------------------------------


def test_lines_reach_the_terminal_without_what_would_command_it(worker: StartWorker, redis_server: RedisServer) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    result = watched.hostile.delay()
    eventually(lambda: texts(result.id))

    text = taskapp(redis_server, "task", "logs", result.id).stdout

    assert all(each.isprintable() or each == "\n" for each in text), ascii(text)
    assert "\\x1b[2J\\x1b]0;owned\\x07 red \\r over \\x9b31m \\u202e back\n    second line" in text


def test_a_task_without_lines_shows_none_and_one_nobody_knows_is_said(redis_server: RedisServer) -> None:
    waits = shop.greet.delay("you")

    quiet, unknown = taskapp(redis_server, "task", "logs", waits.id), taskapp(redis_server, "task", "logs", "nobody")

    assert (quiet.returncode, quiet.stdout) == (0, "")
    assert quiet.stderr == "no log lines: the task has not run yet (queued)\n"
    assert unknown.returncode == 1
    assert "no task with the id 'nobody'" in unknown.stderr


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        (("-l", "WARNING"), {}, "start them with -l INFO"),
        ((), {"TASKAPP_TASK_LOG_LINES": "0"}, "TASKAPP_TASK_LOG_LINES is 0"),
    ],
)
def test_it_says_why_there_are_no_lines_and_what_to_set(
    worker: StartWorker, redis_server: RedisServer, options: tuple[str, ...], environment: dict[str, str], expected: str
) -> None:
    worker(*options, wait=False, TASKAPP_INCLUDE=shop.__name__, **environment)
    result = shop.greet.delay("you")
    result.get(timeout=30)

    done = taskapp(redis_server, "task", "logs", result.id, **environment)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("no log lines: ")
    assert expected in done.stderr


def test_a_pipe_that_is_closed_ends_it_quietly(worker: StartWorker, redis_server: RedisServer) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    result = watched.flood.delay(200, 1_000)
    eventually(lambda: len(texts(result.id)) > 50)

    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m taskapp task logs {result.id} | head -1"],
        env=clean_environment(TASKAPP_BROKER_URL=redis_server.url), capture_output=True, text=True, timeout=30,
    )  # fmt: skip

    assert "Traceback" not in done.stderr
