"""What can break, how to repair it, and which alerts must report it.

Each breaks one of four deployments: ``shop``, which has everything; ``beats``, whose schedules and one of whose nodes
stop; ``full``, whose Redis runs full and cannot save; ``gone``, whose Redis dies; and ``unseen``, whose exporter dies.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from taskapp.redis.keys import Keys
from tests.alerts.watched import Deployment

Labels = dict[str, str]


@dataclass(frozen=True)
class Fault:
    """One thing that breaks."""

    job: str
    alerts: tuple[tuple[str, Labels], ...]
    """Their names, with the labels that identify the subject, in addition to the job."""
    breaks: Callable[[Deployment], None]
    mends: Callable[[Deployment], None]
    inhibited: tuple[tuple[str, Labels], ...] = ()
    """Alerts that fire as well but must be suppressed."""
    first: Callable[[Deployment], None] | None = None
    """What is done before; it breaks when what is inhibited fires."""


def the_bank_is_down(shop: Deployment) -> None:
    shop.submit("for n in range(250): tasks.pay.apply_async((mended,), countdown=n * 0.4)")


def a_service_is_overloaded(shop: Deployment) -> None:
    shop.submit("for _ in range(4): tasks.fetch.delay(mended)")


def a_service_is_down(shop: Deployment) -> None:
    shop.submit("for _ in range(5): tasks.deliver.apply_async((mended,), queue='low')")


def more_comes_than_is_done(shop: Deployment) -> None:
    shop.submit(
        "for _ in range(150): tasks.resize.apply_async((mended,), queue='bulk')\n"
        "for n in range(400): tasks.resize.apply_async((mended,), queue='bulk', countdown=n * 0.25)"
    )


def more_comes_than_a_limit_lets_run(shop: Deployment) -> None:
    shop.submit(
        "for _ in range(150): tasks.call.delay(mended)\n"
        "for n in range(400): tasks.call.apply_async((mended,), countdown=n * 0.25)"
    )


def all_is_well_again(shop: Deployment) -> None:
    shop.mended.touch()


def a_task_type_is_not_deployed(shop: Deployment) -> None:
    shop.submit("app.send_task('tests.alerts.new_tasks.welcome', queue='low')")


def the_release_is_deployed(shop: Deployment) -> None:
    shop.worker("new", "low", TASKAPP_INCLUDE="tests.alerts.tasks,tests.alerts.new_tasks")


def nobody_looks_for_what_is_due(shop: Deployment) -> None:
    shop.submit("app.send_task('taskapp.add', (1, 2), queue='later', countdown=1)")


def somebody_looks(shop: Deployment) -> None:
    shop.worker("later", "later")


def a_queue_has_little_room(shop: Deployment) -> None:
    shop.taskapp("limits", "set", "later", "1")


def it_has_more(shop: Deployment) -> None:
    shop.taskapp("limits", "clear", "later")


def beat_freezes(shop: Deployment) -> None:
    os.kill(shop["beat"].pid, signal.SIGSTOP)


def beat_thaws(shop: Deployment) -> None:
    os.kill(shop["beat"].pid, signal.SIGCONT)


def the_writer_of_the_history_is_killed(shop: Deployment) -> None:
    shop["history"].kill()


def it_writes_again(shop: Deployment) -> None:
    shop.history()


def the_only_schedule_is_paused(beats: Deployment) -> None:
    beats.taskapp("schedules", "pause", "canary")


def it_is_resumed(beats: Deployment) -> None:
    beats.taskapp("schedules", "resume", "canary")


def a_schedule_is_overwritten(beats: Deployment) -> None:
    beats.taskapp("schedules", "add", "often", "taskapp.add", "every 2s", "--args", "[1, 2]")
    beats.redis.client.hset(Keys("")("schedule", "often"), "about", "{")


def it_is_removed(beats: Deployment) -> None:
    beats.taskapp("schedules", "remove", "often")


def a_node_is_killed(beats: Deployment) -> None:
    beats["second"].kill()
    beats.submit("for _ in range(3): app.send_task('taskapp.add', (1, 2), queue='default')")


def it_is_started_again(beats: Deployment) -> None:
    beats.worker("second", "default")


def redis_runs_full(full: Deployment) -> None:
    full.fill()


def it_has_memory_again(full: Deployment) -> None:
    full.redis.client.config_set("maxmemory", 0)


def the_disk_refuses(full: Deployment) -> None:
    # Also for root: a snapshot cannot take the name of a directory.
    (full.redis.directory / "dump.rdb").mkdir()
    full.redis.client.config_set("appendonly", "no")
    for _ in range(200):
        full.redis.client.incr("changes")
    full.redis.client.bgsave()


def the_disk_takes_again(full: Deployment) -> None:
    (full.redis.directory / "dump.rdb").rmdir()
    full.redis.client.config_set("appendonly", "yes")
    full.redis.client.bgsave()


def nothing_is_saved(beats: Deployment) -> None:
    beats.redis.client.config_set("appendonly", "no")


def every_change_is_saved(beats: Deployment) -> None:
    beats.redis.client.config_set("appendonly", "yes")


def much_fails(gone: Deployment) -> None:
    letters = {str(number): number for number in range(1, 31)}
    gone.redis.client.zadd(Keys("")("dead", "default", "failed"), letters)


def the_broker_dies(gone: Deployment) -> None:
    gone.redis.kill()


def the_broker_is_back(gone: Deployment) -> None:
    gone.redis.start()


def the_exporter_dies(unseen: Deployment) -> None:
    unseen["exporter"].kill()


def the_exporter_is_back(unseen: Deployment) -> None:
    unseen.export()
    unseen.ready()


FAULTS = (
    Fault(
        "taskapp-shop",
        (
            ("TaskappTasksFail", {"type": "tests.alerts.tasks.pay"}),
            ("TaskappDeadLettersGrow", {"queue": "default"}),
            ("TaskappDeadLettersDropped", {"reason": "failed"}),
        ),
        the_bank_is_down,
        all_is_well_again,
    ),
    Fault(
        "taskapp-shop", (("TaskappRetryStorm", {"type": "tests.alerts.tasks.fetch"}),),
        a_service_is_overloaded, all_is_well_again,
    ),
    Fault(
        "taskapp-shop", (("TaskappCircuitOpen", {"type": "tests.alerts.tasks.deliver"}),),
        a_service_is_down, all_is_well_again,
    ),
    Fault(
        "taskapp-shop", (("TaskappBacklogGrows", {"queue": "bulk"}), ("TaskappTasksWaitTooLong", {"queue": "bulk"})),
        more_comes_than_is_done, all_is_well_again,
    ),
    Fault(
        "taskapp-shop", (("TaskappBlockedTasksGrow", {"limit": "tests.alerts.tasks.call", "kind": "slots"}),),
        more_comes_than_a_limit_lets_run, all_is_well_again,
    ),
    Fault(
        "taskapp-shop", (("TaskappTasksParked", {"queue": "low"}),),
        a_task_type_is_not_deployed, the_release_is_deployed,
    ),
    Fault(
        "taskapp-shop", (("TaskappDelayedTasksLate", {"queue": "later"}),),
        nobody_looks_for_what_is_due, somebody_looks,
    ),
    Fault(
        "taskapp-shop", (("TaskappQueueFull", {"queue": "later"}),),
        a_queue_has_little_room, it_has_more,
    ),
    Fault("taskapp-shop", (("TaskappBeatLate", {}),), beat_freezes, beat_thaws),
    Fault(
        "taskapp-shop", (("TaskappHistoryBehind", {}),), the_writer_of_the_history_is_killed, it_writes_again,
    ),
    Fault("taskapp-beats", (("TaskappBeatSilent", {}),), the_only_schedule_is_paused, it_is_resumed),
    Fault(
        "taskapp-beats", (("TaskappSchedulesBroken", {}),), a_schedule_is_overwritten, it_is_removed,
    ),
    Fault(
        "taskapp-beats", (("TaskappLeasesLost", {}), ("TaskappQueueHasNoNode", {"queue": "default"})),
        a_node_is_killed, it_is_started_again, inhibited=(("TaskappTasksWaitTooLong", {"queue": "default"}),),
    ),
    Fault("taskapp-beats", (("TaskappRedisNotSaved", {}),), nothing_is_saved, every_change_is_saved),
    Fault(
        "taskapp-full", (("TaskappRedisMemoryHigh", {}), ("TaskappRedisEvicts", {})),
        redis_runs_full, it_has_memory_again,
    ),
    Fault(
        "taskapp-full", (("TaskappRedisSaveFails", {}),), the_disk_refuses, the_disk_takes_again,
        inhibited=(("TaskappRedisNotSaved", {}),),
    ),
    Fault(
        "taskapp-gone", (("TaskappBrokerDown", {}),),
        the_broker_dies, the_broker_is_back,
        inhibited=(("TaskappDeadLettersGrow", {"queue": "default"}),), first=much_fails,
    ),
    Fault("taskapp-unseen", (("TaskappExporterGone", {}),), the_exporter_dies, the_exporter_is_back),
)  # fmt: skip
