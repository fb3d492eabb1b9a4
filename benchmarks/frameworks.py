"""The frameworks, each with the settings its documentation recommends for what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LATE, EARLY = "after the run", "before the run"


@dataclass(frozen=True)
class Variant:
    """A framework with one way of running its worker."""

    key: str
    title: str
    framework: str
    """Its adaptor, and its file in ``peers/``."""
    command: str
    """How its worker is started; ``{slots}`` tasks at once, ``{number}`` of the worker. ``BIN`` has its programs."""
    acknowledges: str = LATE
    """When a message is acknowledged: early means that a running task is lost when its worker is killed."""
    environment: Mapping[str, str] = field(default_factory=dict)
    store: str = "redis"
    slots: int = 100
    """Tasks at once, for no-op tasks."""
    submits: bool = True
    """Whether submitting is measured with this variant; it is the same for all pools of a framework."""
    has_bulk: bool = True
    has_delay: bool = True
    naps_at_once: int = 0
    """How many sleeping tasks one worker can hold; 0 if each occupies a thread or a process."""
    grows: bool = False
    """Whether its cost is also measured against queue length, number of workers and payload size."""
    scheduler: str = ""
    """Command that has to run next to the workers for delayed tasks."""
    beat: str = ""
    """Command that sends timed jobs, measured in ``schedules``. Two of them must be able to run together."""
    only_beat: bool = False
    """Whether only its beat is measured."""
    note: str = ""

    def argv(self, command: str, python: Path, slots: int, number: int = 0) -> list[str]:
        """Return one of its commands as an argument list, for the environment that has ``python``."""
        words = command.format(slots=slots, number=number).split()
        return [str(python) if word == "python" else word.replace("BIN", str(python.parent)) for word in words]


TASKAPP_ENVIRONMENT = {
    "TASKAPP_ENV_FILE": "",
    "TASKAPP_BROKER_URL": "{url}",
    "TASKAPP_DATA_DIR": "{directory}/data",
    "TASKAPP_CANARY_SECONDS": "0",
}


def _taskapp(key: str, title: str, options: str, **more: Any) -> Variant:
    command = "python -m celery -A benchmarks.adaptors.taskapp worker -n w{number}@%h -l WARNING " + options
    environment = {**TASKAPP_ENVIRONMENT, **more.pop("environment", {})}
    return Variant(f"taskapp-{key}", f"taskapp, {title}", "taskapp", command, environment=environment, **more)


def _celery(key: str, title: str, options: str, **more: Any) -> Variant:
    command = (
        "python -m celery -A benchmarks.adaptors.celery worker -n w{number}@%h -l WARNING "
        "--without-mingle --without-gossip " + options
    )
    return Variant(f"celery-{key}", f"Celery, {title}", "celery", command, **more)


WATCHED = {"BENCH_WATCHED": "1"}
COROUTINES = {"BENCH_TASKS": "_async", "TASKAPP_ASYNC_SLOTS": "{slots}"}
EVENTS = "with events, STARTED and extended results"
TASKIQ_SCHEDULER = "BIN/taskiq scheduler benchmarks.adaptors.taskiq:scheduler --update-interval 1 --log-level WARNING"

VARIANTS = (
    Variant("floor", "no framework", "floor", "python -m benchmarks.adaptors.floor", slots=1, has_delay=False),
    _taskapp(
        "async", "`async def`", "-c 8", environment=COROUTINES, slots=1_000, naps_at_once=100_000, grows=True,
        beat="python -m celery -A benchmarks.adaptors.taskapp beat -l WARNING",
    ),
    _taskapp("def", "`def` on threads", "-c {slots}", slots=8, submits=False),
    _taskapp("prefork", "-P prefork", "-P prefork -c {slots}", slots=2, submits=False),
    _taskapp("solo", "-P solo", "-P solo", slots=1, submits=False, has_delay=False),
    _taskapp("threads", "-P threads", "-P threads -c {slots}", slots=8, submits=False, has_delay=False),
    _taskapp(
        "async-events", f"`async def`, {EVENTS}", "-c 8", environment={**COROUTINES, **WATCHED}, slots=1_000,
        has_delay=False,
    ),
    _celery("solo", "-P solo", "-P solo", slots=1, grows=True),
    _celery("threads", "-P threads", "-P threads -c {slots}", slots=8, submits=False),
    _celery("prefork", "-P prefork", "-P prefork -c {slots}", slots=2, submits=False),
    _celery("gevent", "-P gevent", "-P gevent -c {slots}", naps_at_once=100_000, submits=False),
    _celery("solo-events", f"-P solo, {EVENTS}", "-P solo", slots=1, environment=WATCHED, has_delay=False),
    Variant(
        "redbeat", "RedBeat", "redbeat", "", has_delay=False, submits=False, only_beat=True,
        beat="python -m celery -A benchmarks.adaptors.redbeat beat -S redbeat.RedBeatScheduler -l WARNING --pidfile=",
        note="checks for changes every 5 s, as its documentation shows; the default is 5 minutes",
    ),
    Variant(
        "huey", "Huey", "huey", "BIN/huey_consumer benchmarks.adaptors.huey.app -k thread -w {slots} -q", EARLY,
        slots=1, has_bulk=False, grows=True,
    ),
    Variant(
        "dramatiq", "Dramatiq", "dramatiq", "BIN/dramatiq benchmarks.adaptors.dramatiq -p 1 -t {slots}",
        slots=8, has_bulk=False, grows=True,
    ),
    Variant(
        "saq", "SAQ", "saq", "BIN/saq benchmarks.adaptors.saq.settings -q", naps_at_once=100_000, grows=True,
    ),
    Variant(
        "taskiq-list", "taskiq, list", "taskiq",
        "BIN/taskiq worker benchmarks.adaptors.taskiq:broker -w 1 --max-async-tasks {slots} --log-level WARNING",
        EARLY, scheduler=TASKIQ_SCHEDULER, environment={"BENCH_BROKER": "list"}, naps_at_once=100_000,
    ),
    Variant(
        "taskiq-stream", "taskiq, stream", "taskiq",
        "BIN/taskiq worker benchmarks.adaptors.taskiq:broker -w 1 --max-async-tasks {slots} --log-level WARNING "
        "--ack-type when_saved",
        scheduler=TASKIQ_SCHEDULER, environment={"BENCH_BROKER": "stream"}, naps_at_once=100_000,
    ),
    Variant(
        "arq", "arq", "arq", "BIN/arq benchmarks.adaptors.arq.WorkerSettings", naps_at_once=100_000,
        note="polls for tasks every half second",
    ),
    Variant(
        "streaq", "streaQ", "streaq", "python -m benchmarks.adaptors.streaq", naps_at_once=100_000,
    ),
    Variant(
        "rq", "RQ, a process per task", "rq", "BIN/rq worker -q --with-scheduler", slots=1,
        environment={"RQ_REDIS_URL": "{url}"},
        note="a task whose worker died is marked failed, not run again",
    ),
    Variant(
        "rq-simple", "RQ, SimpleWorker", "rq", "BIN/rq worker -q --with-scheduler -w rq.worker.SimpleWorker", slots=1,
        environment={"RQ_REDIS_URL": "{url}"}, submits=False, has_delay=False,
        note="a task whose worker died is marked failed, not run again",
    ),
    Variant(
        "procrastinate", "procrastinate", "procrastinate",
        "BIN/procrastinate --app benchmarks.adaptors.procrastinate.app worker", store="postgres",
        naps_at_once=10_000, note="stores no results: the tasks here write their own",
    ),
)  # fmt: skip

BY_KEY = {variant.key: variant for variant in VARIANTS}
