"""Celery's configuration, built from the settings; components are referenced by name to avoid imports."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Any

from kombu import Exchange, Queue

from taskapp.devredis import own_server
from taskapp.errors import InvalidSetting, did_you_mean
from taskapp.queues import DEFAULT_QUEUE, HIGHEST_PRIORITY, PRIORITIES, SEPARATOR, TASK_ROUTES, queue_for
from taskapp.settings import Settings
from taskapp.transport.transport import is_over_redis
from taskapp.urls import are_several_redis, revealed, servers_of, with_certificates

TASK_TYPES = ("taskapp.tasks",)


def configuration(settings: Settings, broker_url: str | None, *, ships_task_types: bool) -> dict[str, Any]:
    """Return taskapp's values for Celery's configuration.

    Args:
        settings: The app's settings.
        broker_url: ``None`` if there is no broker yet.
        ships_task_types: Whether to add the task types that ship, their queues and the canary. Otherwise queues are
            Celery's, unless ``TASKAPP_QUEUES`` or ``TASKAPP_ROUTES`` is set.
    """
    over_redis = is_over_redis(broker_url)
    has_own_queues = ships_task_types or bool(settings.chosen & {"queues", "routes"})
    _check_queue_limits(settings, broker_url, settings.queues if has_own_queues else ())
    result_url = with_certificates(revealed(settings.result_url) or (broker_url if over_redis else None))
    own = own_server(settings) if broker_url else None
    return {
        "broker_url": broker_url,
        "result_backend": result_url,
        **(_over_redis(settings, own, str(broker_url)) if over_redis else _over_rabbitmq(settings, broker_url)),
        **(_queues(settings) if has_own_queues else {}),
        **_delivery(settings),
        **_results(settings, None if settings.result_url else own),
        **_watching(),
        "imports": (*(TASK_TYPES if ships_task_types else ()), *settings.include),
        "beat_scheduler": (
            "taskapp.beat.scheduler:Scheduler"
            if over_redis or is_over_redis(result_url)
            else "taskapp.beat.file_scheduler:FileScheduler"
        ),
        "beat_schedule": _beat_schedule(settings) if ships_task_types else {},
        "beat_schedule_filename": str(settings.data_dir / "celerybeat-schedule"),
        # One time zone for all: no node may interpret a due time differently.
        "timezone": "UTC",
        "enable_utc": True,
    }


def _check_queue_limits(settings: Settings, broker_url: str | None, queues: Collection[str]) -> None:
    """Refuse limits of queues that would have no effect; ``queues`` are all there are, empty if others may be added."""
    problem = None
    if settings.queue_limits and broker_url is not None and not is_over_redis(broker_url):
        problem = "it needs Redis as the broker; unset it"
    elif unknown := [queue for queue in settings.queue_limit_table if queues and queue not in queues]:
        problem = f"no queue named {unknown[0]!r}{did_you_mean(unknown[0], queues)} (queues: {', '.join(queues)})"
    if problem is not None:
        raise InvalidSetting("TASKAPP_QUEUE_LIMITS", ",".join(settings.queue_limits), problem)


def _over_redis(settings: Settings, own: Path | None, broker_url: str) -> dict[str, Any]:
    attempt_seconds = _attempt_seconds(settings)
    return {
        "broker_transport_options": {
            **_login(own),
            "global_keyprefix": settings.key_prefix,
            "master_name": settings.sentinel_master,
            "queue_order": settings.queues,
            "lease_seconds": settings.lease_seconds,
            "starvation_guard": settings.starvation_guard,
            "crash_limit": settings.crash_limit,
            "dead_letters_limit": settings.dead_letters_limit,
            "parked_seconds": settings.parked_seconds,
            "submit_deadline_seconds": settings.submit_deadline_seconds,
            "queue_limits": settings.queue_limit_table,
            "waits_for_room": settings.queue_full == "wait",
            "unpacked_bytes_most": settings.max_unpacked_bytes,
            # Ten levels under kombu's names; Flower reads the steps here to add them up right.
            "priority_steps": list(PRIORITIES),
            "sep": SEPARATOR,
            # So that a waiting node is not mistaken for a stock Celery worker.
            "client_name": "taskapp",
            # A dead or frozen server must give delay() an error, not a hang.
            "socket_timeout": attempt_seconds,
            "socket_connect_timeout": attempt_seconds,
            "socket_keepalive": True,
            # Callers that wait for a channel have a deadline and retry themselves. Several servers are each tried once.
            "max_retries": len(servers_of(broker_url)) - 1 if are_several_redis(broker_url) else 0,
        },
    }


def _over_rabbitmq(settings: Settings, broker_url: str | None) -> dict[str, Any]:
    if broker_url is None or not broker_url.startswith(("amqp", "pyamqp")):
        return {}
    # A message counts as sent once the broker has confirmed it: otherwise it is lost if the connection breaks.
    return {"broker_transport_options": {"confirm_publish": True, "unpacked_bytes_most": settings.max_unpacked_bytes}}


def _attempt_seconds(settings: Settings) -> float:
    """Return how long one wait for the server may take, so that a submit stays within its deadline.

    A submit has at most three waits: to connect, to send the message, and to find out whether it was queued.
    """
    return settings.submit_deadline_seconds / 3


class _ByName:
    """Route that depends only on the name of a task, so that it is computed once per task type."""

    looks_at_name_only = True

    def __init__(self, routes: dict[str, str]) -> None:
        self._routes = routes

    def __call__(self, name: str, *_: Any, **__: Any) -> dict[str, str]:
        """Return the route of ``name``."""
        return {"queue": queue_for(name, self._routes)}


def _queues(settings: Settings) -> dict[str, Any]:
    routes = {**TASK_ROUTES, **settings.route_table}
    return {
        "task_queues": [
            Queue(
                name,
                Exchange(name, type="direct"),
                routing_key=name,
                # RabbitMQ keeps priorities only in queues declared with their number.
                queue_arguments={"x-max-priority": HIGHEST_PRIORITY},
            )
            for name in settings.queues
        ],
        "task_default_queue": DEFAULT_QUEUE,
        "task_routes": (_ByName(routes),),
        # A misspelt name would create a queue that no worker ever reads.
        "task_create_missing_queues": False,
    }


def _delivery(settings: Settings) -> dict[str, Any]:
    return {
        # Acknowledged after the run, so that a message outlives the worker that holds it.
        "task_acks_late": True,
        # The death of a child process returns its message instead of failing the task.
        "task_reject_on_worker_lost": True,
        # Fetch no more than can run now: prefetched messages wait behind a long task.
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Running tasks keep their lease through a lost connection; fewer slots would not help.
        "worker_enable_prefetch_count_reduction": False,
        "worker_consumer": "taskapp.worker.consume.consumer:Consumer",
        "worker_pool": "taskapp.worker.pool.pool:TaskPool",
        # Pickle would let anyone who can write to the broker run code.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_publish_retry": True,
        "task_publish_retry_policy": {
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.1,
        },
        "broker_connection_timeout": _attempt_seconds(settings),
        # A worker that starts before its broker waits for it.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
    }


def _login(own: Path | None) -> dict[str, str]:
    return {"own_server": str(own)} if own else {}


def _results(settings: Settings, own: Path | None) -> dict[str, Any]:
    return {
        # Results that are never fetched must not fill the server.
        "result_expires": timedelta(seconds=settings.result_expires_seconds),
        # Store type, queue and arguments of a finished task, for Flower and for people.
        "result_extended": True,
        "redis_socket_timeout": _attempt_seconds(settings),
        "redis_socket_connect_timeout": _attempt_seconds(settings),
        "result_backend_transport_options": {
            **_login(own),
            "global_keyprefix": settings.key_prefix,
            "max_result_bytes": settings.max_result_bytes,
            "master_name": settings.sentinel_master,
            "retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1},
        },
    }


def _watching() -> dict[str, Any]:
    return {
        "worker_send_task_events": True,
        # The time of the submit is needed to tell how long tasks wait.
        "task_send_sent_event": True,
        # So that a long task does not look like a waiting one.
        "task_track_started": True,
    }


def _beat_schedule(settings: Settings) -> dict[str, Any]:
    if not settings.canary_seconds:
        return {}
    return {
        "canary": {
            "task": "taskapp.canary",
            "schedule": timedelta(seconds=settings.canary_seconds),
            # A run that waited for a whole interval gives no new information.
            "options": {"expires": settings.canary_seconds},
        }
    }
