"""The part of Celery's configuration that a submit depends on, read once until a value is set."""

from __future__ import annotations

from typing import Any, NamedTuple

from taskapp.transport.transport import is_over_redis


class SubmitConfig(NamedTuple):
    """Configuration of submits."""

    has_broker: bool
    is_eager: bool
    is_plain: bool
    """Whether ``sender`` passes tasks to the engine; otherwise kombu's producer sends them."""
    sends_event: bool
    serializer: str
    compression: str | None
    inherits_priority: bool


def read_submit_config(conf: Any) -> SubmitConfig:
    """Return the current values in ``conf``, an app's configuration with a broker."""
    return SubmitConfig(
        has_broker=conf.broker_url is not None,
        is_eager=bool(conf.task_always_eager),
        is_plain=is_over_redis(conf.broker_write_url) and conf.event_serializer == "json",
        sends_event=bool(conf.task_send_sent_event),
        serializer=conf.task_serializer,
        compression=conf.task_compression,
        inherits_priority=bool(conf.task_inherit_parent_priority),
    )
