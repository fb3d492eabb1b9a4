"""OpenTelemetry: a submit, its run and all that follows it as spans of one trace.

    the web app's span
    └── submit shop.pay            PRODUCER, as the message is made
        └── run shop.pay           CONSUMER, from the first hook to the last
            ├── submit shop.pay    a retry
            │   └── run shop.pay
            └── submit shop.mail   the next of a chain, a link, a task submitted inside
                └── run shop.mail

Why not ``opentelemetry-instrumentation-celery``: it makes the span of a submit the current one and ends it in
``after_task_publish``, where it looks the task up by name. Of a type this process does not know by name it is never
ended nor left, and all that comes later in that thread hangs under it; the same when the push fails. Tasks here are
also pushed a thousand at a time, by another thread, or in the step that ends a run, in an order and a context that
are not those of the submits: spans would be left in the wrong order. Runs that were killed, or stopped from outside,
would have no end. So a submit is what the conventions for messaging call a "create" span: begun and ended as the
message is made, never current.

Without ``TASKAPP_TRACING`` nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taskapp.errors.tracing import TracingUnavailable
from taskapp.transport.transport import is_over_redis
from taskapp.urls import revealed

if TYPE_CHECKING:
    from taskapp.settings import Settings
    from taskapp.tracing.spans import SeenError

SYSTEMS = {"amqp": "rabbitmq", "amqps": "rabbitmq", "pyamqp": "rabbitmq"}


def is_on(settings: Settings) -> bool:
    """Say whether spans are made: as asked for, unless ``OTEL_SDK_DISABLED`` says no to all of OpenTelemetry."""
    return settings.tracing and os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"


def install(settings: Settings, seen_error: SeenError) -> None:
    """Let this process make spans if ``settings`` ask for them. Once more does nothing more.

    Args:
        settings: Turn tracing on, and name the broker.
        seen_error: Returns message and traceback of a task's error as others may see them; ``None``: as they are.

    Raises:
        TracingUnavailable: They do, and OpenTelemetry is not installed.
    """
    if not is_on(settings):
        return
    try:
        from taskapp.tracing import provider, spans
    except ModuleNotFoundError as error:
        raise TracingUnavailable(error.name or "opentelemetry") from error
    spans.connect(system_of(revealed(settings.broker_url)), seen_error)
    provider.finish_with_worker()


def system_of(broker_url: str | None) -> str:
    """Return what conventions call the broker: ``redis``, ``rabbitmq``, or the scheme of its URL."""
    if broker_url is None or is_over_redis(broker_url):
        return "redis"
    scheme = broker_url.partition("://")[0]
    return SYSTEMS.get(scheme, scheme)
