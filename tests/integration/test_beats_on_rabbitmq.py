"""Several beats on RabbitMQ, schedules in the Redis of results: each due time runs once, and schedules hear of it."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from time import time

import pytest
from redis.connection import Connection

from taskapp.redis.keys import Keys
from taskapp.redis.link import Link
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.store import Schedules
from taskapp.schedules.times import Interval, Once, tick_id
from tests.integration import rabbitmq
from tests.integration.rabbitmq import RabbitMQ
from tests.support import Node, Process, RedisServer, clean_environment, eventually, run_python, start_worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not rabbitmq.is_installed(), reason="rabbitmq-server is not installed"),
]

TICKING = "tests.integration.ticking"
TICKS = "taskapp:ticks"


@pytest.fixture(scope="module")
def _broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    yield server
    server.close()


class Site:
    """Beats and workers of one broker, whose schedules and results are in one Redis."""

    def __init__(self, directory: Path, broker: RabbitMQ, redis: RedisServer) -> None:
        self.directory, self.broker, self.redis = directory, broker, redis
        self.file = directory / "ticks"
        self.started: list[Process] = []
        self.settings = {
            "TASKAPP_RESULT_URL": redis.url, "TASKAPP_INCLUDE": TICKING, "TICKING_FILE": str(self.file),
            "TASKAPP_CANARY_SECONDS": "0",
        }  # fmt: skip

    def beat(self, **settings: str) -> Process:
        directory = self.directory / f"beat{len(self.started)}"
        directory.mkdir()
        argv = [sys.executable, "-m", "celery", "-A", "taskapp", "beat", "-l", "INFO"]
        self.started.append(Node(argv, directory / "log", self._environment(directory, **settings), directory))
        return self.started[-1]

    def worker(self, *options: str, name: str = "w1") -> Process:
        self.started.append(start_worker(self.directory, self.broker.url, *options, name=name, **self.settings))
        return self.started[-1]

    def command(self, *argv: str) -> str:
        """Run ``taskapp schedules …``; return what it prints."""
        return self.python("-m", "taskapp", "schedules", *argv)

    def python(self, *argv: str) -> str:
        done = run_python(*argv, env=self._environment(self.directory))
        return done.stdout if done.returncode == 0 else done.stderr

    def _environment(self, directory: Path, **settings: str) -> dict[str, str]:
        return clean_environment(
            TASKAPP_BROKER_URL=self.broker.url, TASKAPP_DATA_DIR=str(directory), **{**self.settings, **settings},
            PYTHONPATH=os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]),
        )  # fmt: skip

    def runs(self, schedule: str, what: str = "begin") -> list[tuple[str, float]]:
        """Id and due time of each run, in the order they began, or ended."""
        text = self.file.read_text() if self.file.exists() else ""
        found = [line.split() for line in text.splitlines()]
        return [(identity, float(due)) for kind, name, identity, due in found if (kind, name) == (what, schedule)]

    def close(self) -> None:
        for process in self.started:
            process.close()
        if not self.broker.answers():
            self.broker.start()
        with rabbitmq.kombu.Connection(self.broker.url) as connection:
            for queue in ("critical", "high", "default", "low"):
                connection.default_channel.queue_delete(queue)


@pytest.fixture
def site(tmp_path: Path, _broker: RabbitMQ, redis_server: RedisServer) -> Iterator[Site]:
    site = Site(tmp_path, _broker, redis_server)
    yield site
    site.close()


@pytest.fixture
def schedules(redis_server: RedisServer) -> Iterator[Schedules]:
    def make(*_: object) -> list[object]:
        raise AssertionError("the test asks for no tick")

    with closing(Link(partial(Connection, port=redis_server.port, protocol=2))) as link:
        yield Schedules(link, "", make)  # type: ignore[arg-type]


def states(schedules: Schedules, name: str) -> set[str]:
    return {tick.state for tick in schedules.ticks(name)}


def assert_each_once(runs: list[tuple[str, float]]) -> None:
    assert [identity for identity, count in Counter(identity for identity, _ in runs).items() if count > 1] == []
    assert len({due for _, due in runs}) == len(runs)


def dues_between(runs: list[tuple[str, float]], every_seconds: float) -> int:
    """How many due times there were from the first that ran to the last."""
    dues = [due for _, due in runs]
    return round((max(dues) - min(dues)) / every_seconds) + 1


def pid_of(leader: str) -> int:
    return int(leader.rpartition(".")[2])


def pause(schedules: Schedules, *names: str) -> None:
    """Let nothing more be due, and what was end."""
    for name in names:
        schedules.pause(name)
    eventually(lambda: all(states(schedules, name) == {"SUCCESS"} for name in names), within_seconds=40)


def test_two_beats_one_of_them_killed_run_each_due_time_once(site: Site, schedules: Schedules) -> None:
    schedules.add(Schedule("all", f"{TICKING}.mark", Interval(0.5), misfire="catch_up"))
    site.worker()
    beats = [site.beat(TICKING_EVERY="0.5") for _ in range(2)]
    eventually(lambda: len(site.runs("configured")) >= 6)

    leader = pid_of(schedules.leader().name)
    assert leader in {beat.pid for beat in beats}
    os.kill(leader, signal.SIGKILL)
    killed_at = time()

    eventually(lambda: len([due for _, due in site.runs("all") if due > killed_at + 8]) >= 10, within_seconds=40)
    assert pid_of(schedules.leader().name) in {beat.pid for beat in beats} - {leader}
    assert not list(site.directory.glob("beat*/celerybeat-schedule*"))
    pause(schedules, "all", "configured")
    for name in ("all", "configured"):
        runs = site.runs(name)
        assert_each_once(runs)
        assert len(runs) + schedules.get(name).missed == dues_between(runs, 0.5)
    assert schedules.get("all").missed == 0
    assert len(site.runs("configured")) >= 10


def queued_entry(site: Site, schedules: Schedules, task: str = "mark", **options: object) -> bytes:
    """What one run by hand of a schedule "job" leaves in the tick queue, where no beat is."""
    schedules.add(Schedule("job", f"{TICKING}.{task}", Once(time() + 86_400), **options))  # type: ignore[arg-type]
    site.command("run-now", "job")
    [entry] = site.redis.client.lrange(Keys().ready(TICKS), 0, -1)
    assert site.command("list").startswith("1 schedule; no active beat")
    return entry.encode()  # type: ignore[no-any-return]


def dropped(worker: Process) -> int:
    return worker.output().count("dropping task ")


@pytest.mark.parametrize("task", ["mark", "mark_on_loop", "mark_in_child"])
def test_what_is_published_twice_runs_once(task: str, site: Site, schedules: Schedules) -> None:
    entry = queued_entry(site, schedules, task)
    worker = site.worker()
    site.beat()
    eventually(lambda: states(schedules, "job") == {"SUCCESS"})

    site.redis.client.lpush(Keys().ready(TICKS), entry, entry)

    eventually(lambda: dropped(worker) == 2)
    assert len(site.runs("job")) == 1
    assert not site.redis.client.llen(Keys().ready(TICKS))
    assert states(schedules, "job") == {"SUCCESS"}


@pytest.mark.parametrize("task", ["mark_and_retry", "mark_early"])
def test_a_retry_of_a_tick_is_no_repeat_of_it(task: str, site: Site, schedules: Schedules) -> None:
    entry = queued_entry(site, schedules, task)
    worker = site.worker()
    site.beat()
    eventually(lambda: len(site.runs("job")) == 2)
    eventually(lambda: states(schedules, "job") == {"SUCCESS" if task == "mark_and_retry" else "STARTED"})

    site.redis.client.lpush(Keys().ready(TICKS), entry)

    eventually(lambda: dropped(worker) == 1)
    assert len(site.runs("job")) == 2


def test_a_repeat_does_not_run_beside_the_first_and_a_redelivery_runs_anew(site: Site, schedules: Schedules) -> None:
    entry = queued_entry(site, schedules, args=(4.0,))
    first = site.worker()
    beat = site.beat()
    eventually(lambda: len(site.runs("job")) == 1)

    # Published twice more: the repeats are with the other worker, or with this one, which is killed.
    site.redis.client.lpush(Keys().ready(TICKS), entry)
    eventually(lambda: dropped(first) == 1)
    first.kill()
    site.redis.client.lpush(Keys().ready(TICKS), entry)
    second = site.worker(name="w2")

    eventually(lambda: site.runs("job", "end"))
    # The repeat that the first dropped comes again, too, if it was killed before it had acknowledged it.
    eventually(lambda: dropped(second) >= 1)
    assert len(site.runs("job")) == 2
    eventually(lambda: states(schedules, "job") == {"SUCCESS"})
    assert beat.returncode is None


def test_a_broker_that_is_away_loses_no_tick(site: Site, schedules: Schedules) -> None:
    schedules.add(Schedule("all", f"{TICKING}.mark", Interval(0.5), misfire="catch_up"))
    schedules.add(Schedule("last", f"{TICKING}.mark", Interval(0.5)))
    site.worker()
    beats = [site.beat(), site.beat()]
    eventually(lambda: len(site.runs("all")) >= 4)

    site.broker.stop()
    stopped_at = time()
    eventually(lambda: any("the broker is unreachable" in beat.output() for beat in beats))
    eventually(lambda: not any(is_ready(beat) for beat in beats), within_seconds=60)
    waiting = site.redis.client.llen(Keys().ready(TICKS))
    assert waiting
    eventually(lambda: time() > stopped_at + 10)
    assert site.redis.client.llen(Keys().ready(TICKS)) == waiting, "it goes on queueing what nobody takes"
    site.broker.start()
    started_at = time()

    eventually(lambda: len([due for _, due in site.runs("all") if due > started_at + 2]) >= 4, within_seconds=60)
    eventually(lambda: all(is_ready(beat) for beat in beats))
    pause(schedules, "all", "last")
    runs = site.runs("all")
    assert len({due for _, due in runs}) == dues_between(runs, 0.5)
    assert schedules.get("last").missed > 0
    # What a node was running when the broker stopped is given out once more, as always.
    for name in ("all", "last"):
        assert_each_once([run for run in site.runs(name) if run[1] > stopped_at])


def is_ready(beat: Process) -> bool:
    return run_python("-m", "taskapp", "health", "ready", env=beat.env).returncode == 0


@pytest.mark.parametrize(
    ("task", "options", "state"),
    [
        ("mark", (), "SUCCESS"),
        ("mark", ("-P", "prefork"), "SUCCESS"),
        ("fail", (), "FAILURE"),
        ("fail", ("-P", "solo"), "FAILURE"),
        ("hang", (), "FAILURE"),
        ("nobody_has_it", (), "FAILURE"),
    ],
)
def test_a_schedule_hears_how_its_run_ended(
    task: str, options: tuple[str, ...], state: str, site: Site, schedules: Schedules
) -> None:
    site.worker(*options)
    schedules.add(Schedule("job", f"{TICKING}.{task}", Once(time() + 0.2), pause_after_failures=1))

    site.beat()

    eventually(lambda: states(schedules, "job") - {"QUEUED"} == {state})
    known = schedules.get("job")
    assert known.unfinished == ""
    assert bool(known.paused) == (state == "FAILURE")
    took_seconds = schedules.ticks("job")[0].took_seconds
    assert took_seconds is not None
    assert took_seconds >= (0.5 if task == "hang" else 0.0)
    assert state in site.command("show", "job")


def test_what_only_names_a_schedule_neither_pauses_it_nor_takes_the_place_of_its_ticks(
    site: Site, schedules: Schedules
) -> None:
    schedules.add(Schedule("job", f"{TICKING}.mark", Interval(3_600.0), pause_after_failures=1))
    due_at = schedules.get("job").due_at
    assert due_at is not None
    site.worker()
    headers = {"taskapp_schedule": "job", "taskapp_due_at": due_at}
    code = f"from taskapp.celery import app; app.send_task({TICKING + '.fail'!r}, task_id=%r, headers={headers!r})"

    for identity in ("elsewhere", tick_id("job", round(due_at * 1_000))):
        site.python("-c", code % identity)
        key = f"celery-task-meta-{identity}"
        eventually(lambda key=key: '"FAILURE"' in (site.redis.client.get(key) or ""))

    assert (schedules.get("job").state, schedules.get("job").failures) == ("active", 0)
    assert site.redis.client.keys("taskapp:tick:*") == []


def test_a_run_that_expired_has_ended(site: Site, schedules: Schedules) -> None:
    schedules.add(Schedule("job", f"{TICKING}.mark", Once(time() + 86_400), options={"expires": 0.5}))
    site.command("run-now", "job")
    [tick] = schedules.ticks("job")
    eventually(lambda: time() > tick.sent_at + 1)

    site.worker()
    site.beat()

    eventually(lambda: states(schedules, "job") == {"REVOKED"})
    assert not site.runs("job")
    assert schedules.get("job").unfinished == ""


def test_one_that_waits_for_the_run_before_it_goes_out_when_that_ends(site: Site, schedules: Schedules) -> None:
    schedules.add(Schedule("job", f"{TICKING}.mark", Interval(1.0), args=(1.5,), overlap="queue"))
    site.worker()

    site.beat()

    eventually(lambda: len(site.runs("job", "end")) >= 4, within_seconds=30)
    begun, ended = site.runs("job"), site.runs("job", "end")
    assert len(begun) - len(ended) <= 1
    assert_each_once(begun)
    assert schedules.get("job").skipped > 0


def test_what_the_broker_will_never_take_sets_its_schedule_aside_and_holds_up_no_other(
    site: Site, schedules: Schedules
) -> None:
    # The queue is there with other arguments than it is declared with.
    with rabbitmq.kombu.Connection(site.broker.url) as connection:
        connection.default_channel.queue_declare("low", durable=False)
    schedules.add(Schedule("refused", f"{TICKING}.mark", Interval(0.5), queue="low"))
    schedules.add(Schedule("good", f"{TICKING}.mark", Interval(0.5)))
    site.worker("-Q", "default")

    site.beat()
    site.redis.client.lpush(TICKS, b"no entry")

    eventually(lambda: schedules.get("refused").state == "broken")
    assert "PRECONDITION_FAILED" in schedules.get("refused").broken
    assert states(schedules, "refused") == {"REJECTED"}
    eventually(lambda: len(site.runs("good")) >= 3)
    letters = site.redis.client.hvals(f"taskapp:{{{TICKS}}}:dead:raw")
    assert len(letters) == 2
    assert "no entry" in letters
    assert not site.redis.client.llen(Keys().ready(TICKS))


def test_where_neither_is_a_redis_beat_says_that_only_one_may_run(site: Site) -> None:
    beat = site.beat(TASKAPP_RESULT_URL=f"db+sqlite:///{site.directory}/results.sqlite")

    eventually(lambda: "only one beat may run" in beat.output())
    site.settings["TASKAPP_RESULT_URL"] = ""
    assert "schedules need Redis as the broker or for results" in site.command("list")
    site.settings["TASKAPP_RESULT_URL"] = "redis://127.0.0.1:1/0"
    assert site.command("list").startswith("Error: the result Redis cannot be reached")
    assert beat.cwd is not None
    eventually(lambda: list(beat.cwd.glob("celerybeat-schedule*")))  # type: ignore[union-attr]
