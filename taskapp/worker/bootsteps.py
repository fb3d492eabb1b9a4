"""What the engine must know of a worker, and the worker of the engine: types, pool, start and end."""

from __future__ import annotations

import gc
from functools import cache, partial
from time import monotonic
from typing import Any

import click
from celery import bootsteps, signals
from celery.concurrency import get_implementation
from celery.exceptions import ImproperlyConfigured, WorkerShutdown
from celery.utils.log import get_logger
from celery.worker.state import active_requests
from click.core import ParameterSource
from redis.exceptions import RedisError, ResponseError

from taskapp.celery_internals import broker_connection
from taskapp.engine import runtime
from taskapp.errors import EvictingBroker
from taskapp.execution.note_writer import finish_writing
from taskapp.probes.health import Status
from taskapp.probes.status_file import Reporter
from taskapp.settings import get_settings
from taskapp.transport.channel import EngineChannel
from taskapp.worker import remote_control
from taskapp.worker.consume.failed_letters import DeadTaskFailer
from taskapp.worker.consume.revoked import LearnRevoked
from taskapp.worker.drain import TELLING_SECONDS, Drain
from taskapp.worker.green_remote import KeepRemoteControl
from taskapp.worker.node_info import NodeInfo
from taskapp.worker.pool.hub import LoopHub
from taskapp.worker.pool.pool import TaskPool
from taskapp.worker.pool.prefork import PreforkPool
from taskapp.worker.process.green_exits import confine
from taskapp.worker.process.stop_signals import StopSignals
from taskapp.worker.recycle import RecycleCheck
from taskapp.worker.run.receivers import guard_receivers
from taskapp.worker.run.task_log import install_task_log
from taskapp.worker.worker import EXIT_CONFIGURATION

logger = get_logger(__name__)


class RefuseEvictingBroker(bootsteps.StartStopStep):
    """Ends a worker whose Redis would delete queues when it is full."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, c: Any) -> None:
        """Ask for the policy; a Redis that may not be asked is trusted."""
        channel = c.connection.default_channel
        if not isinstance(channel, EngineChannel):
            return
        try:
            answer = channel.process.producer.link.command("CONFIG", "GET", "maxmemory-policy")
        except ResponseError:
            return
        except RedisError as error:
            raise ConnectionError(str(error)) from error
        policy = answer[1].decode() if answer else ""
        if policy.startswith("allkeys-"):
            logger.critical("%s", EvictingBroker(policy))
            raise WorkerShutdown(EXIT_CONFIGURATION)

    def stop(self, c: Any) -> None:
        """Nothing to undo."""


class MarkReady(bootsteps.StartStopStep):
    """Tells probes when this worker takes tasks, and follows the turns of its loop."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, c: Any) -> None:
        """From here on the loop has to turn."""
        status = c.controller.reporter.status
        if status.phase == "starting":
            status.turn_due_at = status.pool_at = monotonic()
            status.phase = "running"

    def stop(self, c: Any) -> None:
        """Celery connects anew, and may wait long for that; or it ends."""
        status = c.controller.reporter.status
        if status.phase == "running":
            status.phase = "starting"

    def register_with_event_loop(self, c: Any, hub: Any) -> None:
        """Be told of each turn."""
        hub.on_tick.add(c.controller.turn)


def watch_worker(sender: Any) -> None:
    """Let this worker be seen by probes and end in time."""
    guard_receivers()
    settings = get_settings()
    reporter = getattr(sender, "reporter", None)
    if reporter is None:  # not the program, but Celery's worker for tests
        reporter = sender.reporter = Reporter(settings.data_dir, Status(sender.hostname))
        reporter.start()
    status = reporter.status
    drain = sender.drain = Drain(sender, settings.drain_seconds)
    sender.stop_signals = StopSignals(drain.on_sender)
    sender.turn = RecycleCheck(sender, status, settings)

    def look(status: Status, now: float) -> None:
        if runtime.is_in_touch():
            status.broker_at = now
        # The loop's own thread runs the task: it need not turn.
        status.in_task = _runs_tasks_on_loop(sender.pool) and len(active_requests) > 0

    def begin_to_drain() -> None:
        status.ends_at, status.phase = drain.ends_at, "draining"

    drain.on_begin = begin_to_drain
    reporter.look = look
    signals.worker_shutting_down.connect(drain.on_signal, weak=False)
    signals.worker_shutdown.connect(lambda **_: sender.reporter.stop(), weak=False)


def describe_worker(sender: Any) -> None:
    """Tell the engine what this worker can do, before it consumes."""
    app = sender.app
    runtime.role.name = sender.hostname
    runtime.role.types = lambda: {name: slots.kind(name) if (slots := runtime.role.slots) else "" for name in app.tasks}
    choose_pool(sender)
    runtime.role.isolates = getattr(sender.pool_cls, "__module__", "").endswith("prefork")
    runtime.role.is_in_task = partial(_is_in_task, sender)
    runtime.role.has_room = partial(_has_room, sender)
    sender.teller = DeadTaskFailer(app)
    runtime.role.on_buried = sender.teller.tell
    runtime.role.about = NodeInfo(sender)


def choose_pool(worker: Any) -> None:
    """Give a worker whose pool nobody typed ours, and the loop it needs."""
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source("pool") if context is not None else None
    if worker.pool_cls is TaskPool and source is ParameterSource.COMMANDLINE:
        # Celery takes the configured pool also for ``-P prefork``.
        worker.pool_cls = PreforkPool
    if get_implementation(worker.pool_cls) is not TaskPool:
        return
    if not worker.use_eventloop:
        url = broker_connection(worker).as_uri()
        raise ImproperlyConfigured(
            f"the pool of coroutines and threads needs an event loop, which the broker {url!r} has none for; "
            "start the worker with -P threads or -P solo"
        )
    broker_connection(worker).requires_hub = LoopHub


def freeze_what_stays(**_: Any) -> None:
    """Spare the garbage collector what lives as long as the worker: code, task types, settings."""
    gc.collect()
    gc.freeze()
    # A task makes some hundred objects and few cycles: looking after every 700 costs a twentieth of a short task.
    # And a node with 100,000 tasks in flight has millions of objects, which all wait while the last generation is seen
    # through.
    gc.set_threshold(10_000, 10, 100)


def _is_in_task(worker: Any) -> bool:
    """Return whether the loop's thread runs a task: its lease is renewed then, though the loop stands still."""
    if isinstance(worker.pool, TaskPool):
        return worker.pool.is_in_task()
    return _runs_tasks_on_loop(worker.pool) and len(active_requests) > 0


def _runs_tasks_on_loop(pool: Any) -> bool:
    return type(pool).__module__.rpartition(".")[2] in ("solo", "gevent", "eventlet")


def _has_room(worker: Any) -> bool:
    if worker.turn.has_begun_enough():
        return False
    later = worker.app.backend.__dict__.get("later")  # made when there is something to store later
    return later is None or bool(later.has_room())


def give_all_back(sender: Any, **_: Any) -> None:
    """Give back what this worker still holds, and end its lease; results that can be stored in time are."""
    later, drain = sender.app.backend.__dict__.get("later"), sender.drain
    if later is not None:
        later.finish(drain.ends_at - monotonic() if drain.ends_at else get_settings().drain_seconds)
    runtime.close_nodes(suspects=drain.find_suspects())
    sender.teller.finish(TELLING_SECONDS)
    finish_writing()


def finish_in_child(**_: Any) -> None:
    """Write what the tasks of a child process said last."""
    finish_writing()


def count_discarded(expired: bool, **_: Any) -> None:  # noqa: FBT001 - Celery's signal
    """Count tasks that expired or were revoked: they are not kept."""
    runtime.count("expired" if expired else "revoked")


def prepare(worker: Any) -> None:
    """Make a node of ``worker``, one of an app of ours."""
    install(worker.app)
    describe_worker(worker)
    watch_worker(worker)


@cache
def install(app: Any) -> None:
    """Connect all of this to the workers of ``app``; once in a process."""
    remote_control.install()
    app.steps["consumer"].update((RefuseEvictingBroker, MarkReady, LearnRevoked, KeepRemoteControl))
    signals.worker_ready.connect(freeze_what_stays, weak=False)
    signals.worker_ready.connect(lambda sender, **_: confine(sender.controller), weak=False)
    signals.worker_ready.connect(lambda sender, **_: sender.controller.stop_signals.watch(), weak=False)
    signals.task_revoked.connect(count_discarded, weak=False)
    signals.celeryd_after_setup.connect(install_task_log, weak=False)
    signals.worker_shutdown.connect(give_all_back, weak=False)
    signals.worker_process_shutdown.connect(finish_in_child, weak=False)
