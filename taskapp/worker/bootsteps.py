"""Connects Celery's worker to the engine: task types, pool, probes, start and end."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Sequence
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
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError

from taskapp import recursion
from taskapp.app.declared_limits import declared_numbers
from taskapp.app.remarks import remarks_on
from taskapp.background import start_thread
from taskapp.celery_internals import broker_connection
from taskapp.engine import runtime
from taskapp.errors.apps import EvictingBroker
from taskapp.execution.current_task import follow_contexts
from taskapp.execution.failures import interrupts
from taskapp.execution.note_writer import finish_writing
from taskapp.logs.guarded import guard_loggers
from taskapp.logs.task_lines import task_lines
from taskapp.probes.health import Status
from taskapp.probes.status_file import Reporter
from taskapp.redis.scripts import read_scripts
from taskapp.settings import get_settings
from taskapp.transport.channel import EngineChannel
from taskapp.urls import revealed
from taskapp.worker import remote_control
from taskapp.worker.consume.failed_letters import DeadTaskFailer
from taskapp.worker.consume.revoked import LearnRevoked
from taskapp.worker.drain import FAILING_SECONDS, Drain
from taskapp.worker.green_remote import KeepRemoteControl
from taskapp.worker.node_info import NodeInfo
from taskapp.worker.outbox_relay import NodeRelay
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
        """Check the eviction policy; skip the check if the user may not read it.

        Raises:
            ConnectionError: Redis cannot be reached.
            WorkerShutdown: The policy evicts keys without a TTL, so the worker must not start.
        """
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
        """Do nothing: there is nothing to undo."""


class MarkReady(bootsteps.StartStopStep):
    """Marks the worker as ready for probes while it consumes, and follows the turns of its loop."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, c: Any) -> None:
        """Set the phase to ``running``; from now on, the loop has to take turns."""
        status = c.controller.reporter.status
        if status.phase == "starting":
            status.turn_due_at = status.pool_at = monotonic()
            status.phase = "running"

    def stop(self, c: Any) -> None:
        """Set the phase back to ``starting``: Celery reconnects, which may take long, or stops."""
        status = c.controller.reporter.status
        if status.phase == "running":
            status.phase = "starting"

    def register_with_event_loop(self, c: Any, hub: Any) -> None:
        """Run the recycle check on each turn of the loop."""
        hub.on_tick.add(c.controller.turn)


def watch_worker(sender: Any) -> None:
    """Set up probes, the drain deadline and the recycle check of this worker."""
    guard_receivers()
    guard_loggers(interrupts)
    settings = get_settings()
    reporter = getattr(sender, "reporter", None)
    is_program = reporter is not None  # otherwise Celery's worker for tests
    if reporter is None:
        reporter = sender.reporter = Reporter(settings.data_dir, Status(sender.hostname))
        reporter.start()
    status = reporter.status
    drain = sender.drain = Drain(sender, settings.drain_seconds, ends_process=is_program)
    sender.stop_signals = StopSignals(drain.on_sender)
    sender.turn = RecycleCheck(sender, status, settings)

    def look(status: Status, now: float) -> None:
        if runtime.is_in_touch():
            status.broker_at = now
        # If the loop's own thread runs a task, the loop takes no turns until it ends.
        status.in_task = _runs_tasks_on_loop(sender.pool) and len(active_requests) > 0

    def begin_to_drain() -> None:
        status.ends_at, status.phase = drain.ends_at, "draining"

    drain.on_begin = begin_to_drain
    reporter.look = look
    signals.worker_shutting_down.connect(drain.on_signal, weak=False)
    signals.worker_shutdown.connect(lambda **_: sender.reporter.stop(), weak=False)


def watch_signals(sender: Any, **_: Any) -> None:
    """Watch who sends stop signals, and restore their handlers if a task changes them."""
    worker = sender.controller
    worker.stop_signals.watch()
    recursion.remember()
    if isinstance(worker.pool, TaskPool):
        worker.pool.after_coroutine = worker.stop_signals.mend_stopping


def describe_worker(sender: Any) -> None:
    """Describe this worker to the engine before it consumes: name, task types, pool."""
    app = sender.app
    runtime.role.name = sender.hostname
    runtime.role.types = lambda: {name: slots.kind(name) if (slots := runtime.role.slots) else "" for name in app.tasks}
    choose_pool(sender)
    runtime.role.isolates = getattr(sender.pool_cls, "__module__", "").endswith("prefork")
    runtime.role.is_in_task = partial(_is_in_task, sender)
    runtime.role.has_room = partial(_has_room, sender)
    sender.failer = DeadTaskFailer(app)
    runtime.role.on_buried = sender.failer.fail_later
    runtime.role.limits = partial(declared_numbers, app)
    runtime.role.on_revoked = partial(_make_room, app)
    runtime.role.before_settling = task_lines.write
    task_lines.is_batching = True
    runtime.role.about = NodeInfo(sender)


def _make_room(app: Any, task_ids: Sequence[str]) -> None:
    """Revoke running tasks, on whatever nodes, for the next ones of their key; without making the loop wait."""

    def revoke() -> None:
        try:
            app.control.revoke(list(task_ids), terminate=True)
        except (RedisError, OSError, OperationalError) as error:
            logger.warning("could not end %s, whose place others need: %s", ", ".join(task_ids), error)

    start_thread(revoke, name="make-room")


def choose_pool(worker: Any) -> None:
    """Choose the pool and the event loop it needs; ``TaskPool`` unless another is named.

    Raises:
        ImproperlyConfigured: The broker has no event loop, which ``TaskPool`` needs.
    """
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source("pool") if context is not None else None
    if worker.pool_cls is TaskPool and source is ParameterSource.COMMANDLINE:
        # For ``-P prefork``, too, Celery uses the configured pool.
        worker.pool_cls = PreforkPool
    if get_implementation(worker.pool_cls) is not TaskPool:
        return
    if not worker.use_eventloop:
        url = broker_connection(worker).as_uri()
        raise ImproperlyConfigured(
            f"the default pool needs an event loop, which the broker {url!r} does not support; "
            "start the worker with -P threads or -P solo"
        )
    broker_connection(worker).requires_hub = LoopHub


def warn_of_missing_extras(instance: Any, **_: Any) -> None:
    """Log the built-in task types that this node lacks because their packages are not installed."""
    for name, error in sorted(getattr(instance.app.tasks, "lacking", {}).items()):
        remedy = f"install it with pip install 'taskapp[{error.extra}]'"
        logger.warning(
            "this node does not run %s: package %s is not installed; %s", name, error.package, remedy,
            extra={"action": "missing_extra"},
        )  # fmt: skip


def say_remarks(instance: Any, **_: Any) -> None:
    """Log what the project's own settings weaken, and which have no effect, once."""
    for remark in remarks_on(instance.app):
        level = logging.WARNING if remark.weakens else logging.INFO
        effect = ": " if remark.weakens else " has no effect: "
        logger.log(level, "setting %s%s%s", remark.setting, effect, remark.text, extra={"action": "setting"})


def relay_outbox(sender: Any, **_: Any) -> None:
    """Relay the outbox of the settings, if they name one, until this node stops."""
    worker = sender.controller
    if (url := revealed(worker.app.settings.outbox_url)) is not None:
        relay = NodeRelay(worker.app, url)
        relay.start()
        signals.worker_shutting_down.connect(lambda **_: relay.stop(), weak=False)


def freeze_what_stays(**_: Any) -> None:
    """Exclude from garbage collection the objects that live as long as the worker: code, task types, settings."""
    gc.collect()
    gc.freeze()
    # A task creates a few hundred objects and few cycles: the default of one collection per 700 objects costs 5 % of a
    # short task. And with 100,000 tasks in flight, there are millions of objects, and all tasks wait while the oldest
    # generation is collected.
    gc.set_threshold(10_000, 10, 100)


def _is_in_task(worker: Any) -> bool:
    """Return whether the loop's thread runs a task; the lease is then renewed although the loop takes no turns."""
    if isinstance(worker.pool, TaskPool):
        return worker.pool.is_in_task()
    return _runs_tasks_on_loop(worker.pool) and len(active_requests) > 0


def _runs_tasks_on_loop(pool: Any) -> bool:
    return type(pool).__module__.rpartition(".")[2] in ("solo", "gevent", "eventlet")


def _has_room(worker: Any) -> bool:
    if worker.turn.has_begun_enough():
        return False
    later = worker.app.backend.__dict__.get("later")  # created with the first deferred result
    return later is None or bool(later.has_room())


def give_all_back(sender: Any, **_: Any) -> None:
    """Store deferred results until the drain deadline, requeue what this worker still holds and end its lease."""
    later, drain = sender.app.backend.__dict__.get("later"), sender.drain
    if later is not None:
        later.finish(drain.ends_at - monotonic() if drain.ends_at else get_settings().drain_seconds)
    runtime.close_nodes(suspects=drain.find_suspects())
    sender.failer.finish(FAILING_SECONDS)
    finish_writing()


def finish_in_child(pid: int, **_: Any) -> None:
    """Write the last notes of a child process's tasks; the node itself writes its own later."""
    if pid != _node_pid():
        finish_writing()


@cache
def _node_pid() -> int:
    return os.getpid()


def count_discarded(expired: bool, **_: Any) -> None:  # noqa: FBT001 - Celery's signal
    """Count a task that expired or was revoked and is discarded."""
    runtime.count("expired" if expired else "revoked")


def prepare(worker: Any) -> None:
    """Turn ``worker``, of a taskapp application, into a node."""
    read_scripts("engine", "results")
    follow_contexts()
    install(worker.app)
    describe_worker(worker)
    watch_worker(worker)


@cache
def install(app: Any) -> None:
    """Install the bootsteps and signal receivers for the workers of ``app``, once per process."""
    _node_pid()  # that of this process, which children inherit
    remote_control.install()
    app.steps["consumer"].update((RefuseEvictingBroker, MarkReady, LearnRevoked, KeepRemoteControl))
    signals.worker_ready.connect(freeze_what_stays, weak=False)
    signals.worker_ready.connect(lambda sender, **_: confine(sender.controller), weak=False)
    signals.worker_ready.connect(watch_signals, weak=False)
    signals.worker_ready.connect(relay_outbox, weak=False)
    signals.task_revoked.connect(count_discarded, weak=False)
    signals.celeryd_after_setup.connect(install_task_log, weak=False)
    signals.celeryd_after_setup.connect(warn_of_missing_extras, weak=False)
    signals.celeryd_after_setup.connect(say_remarks, weak=False)
    signals.worker_shutdown.connect(give_all_back, weak=False)
    signals.worker_process_shutdown.connect(finish_in_child, weak=False)
