"""Options of submits, for type checkers; nothing imports this module when a program runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict
from uuid import UUID

Links = Any
"""A signature, a list of them, or their dicts."""

Key = str | int | UUID
"""A key of a limit."""


class CommonOptions(TypedDict, total=False):
    """Options of ``apply_async``, of ``submit_many``, and of signatures."""

    add_to_parent: bool
    app_id: str | None
    chain: Any
    chord: Any
    cluster_id: str | None
    compression: str | None
    concurrency_key: Key | None
    connection: Any
    confirm_timeout: float | None
    correlation_id: str | None
    countdown: float | None
    deadline: float | datetime | str | None
    debounce: float | None
    debounce_at_most: float | None
    delivery_mode: int | str | None
    eta: datetime | str | None
    exchange: Any
    expiration: float | None
    expires: float | datetime | str | None
    fair_key: Key | None
    group_id: str | None
    group_index: int | None
    headers: Mapping[str, Any] | None
    ignore_result: bool
    immediate: bool
    link: Links
    link_error: Links
    mandatory: bool
    message_id: str | None
    on_busy: Literal["wait", "drop", "cancel"] | None
    on_duplicate: Literal["existing", "raise", "replace", "latest"] | None
    parent_id: str | None
    priority: int | None
    producer: Any
    publisher: Any
    queue: Any
    rate_cost: float | None
    rate_key: Key | None
    reply_to: str | None
    result_cls: Any
    retries: int
    retry: bool
    retry_policy: Mapping[str, Any] | None
    root_id: str | None
    route_name: str | None
    router: Any
    routing_key: str | None
    serializer: str | None
    shadow: str | None
    soft_time_limit: float | None
    stamped_headers: Sequence[str]
    stamps: Mapping[str, Any]
    time_limit: float | None
    timeout: float | None
    timestamp: float | None
    type: str | None
    unique: bool | Literal["type"] | None
    unique_for: Literal["start", "end"] | float | None
    unique_key: Key | None
    user_id: str | None


class SubmitOptions(CommonOptions, total=False):
    """Options of a submit of one task."""

    task_id: str | None
