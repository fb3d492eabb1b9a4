"""OpenTelemetry: a submit, its run and all follow-ups as spans of one trace.

    the web app's span
    └── submit shop.pay            PRODUCER, as the message is created
        └── run shop.pay           CONSUMER, from the first hook to the last
            ├── submit shop.pay    a retry
            │   └── run shop.pay
            └── submit shop.mail   next step of a chain, a link, or a task submitted by the run
                └── run shop.mail

``opentelemetry-instrumentation-celery`` is not used for these reasons. It makes the span of a submit current and ends
it in ``after_task_publish``, where it looks the task up by name. If this process does not know the task type, or the
push fails, the span is never ended nor detached, and becomes the parent of everything later in that thread. Here,
tasks are also pushed in batches of a thousand, by another thread, or in the step that ends a run, in another order and
context than they were submitted in: spans would be detached in the wrong order. Runs that are killed or stopped from
outside would never end. So a submit is a "create" span in terms of the messaging conventions: started and ended as the
message is created, and never current.

Without ``TASKAPP_TRACING``, OpenTelemetry is not imported.
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
    """Return whether to create spans: if ``settings`` enable tracing and ``OTEL_SDK_DISABLED`` is not set."""
    return settings.tracing and os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"


def install(settings: Settings, seen_error: SeenError) -> None:
    """Make this process create spans if ``settings`` enable tracing. Calling it again has no effect.

    Args:
        settings: Enable tracing and name the broker.
        seen_error: Returns message and traceback of a task's error in masked form; ``None`` if nothing is masked.

    Raises:
        TracingUnavailable: Tracing is enabled, and OpenTelemetry is not installed.
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
    """Return the conventional name of the broker's system: ``redis``, ``rabbitmq``, or the scheme of its URL."""
    if broker_url is None or is_over_redis(broker_url):
        return "redis"
    scheme = broker_url.partition("://")[0]
    return SYSTEMS.get(scheme, scheme)
