"""Refuses options of a submit that have no effect: Celery passes misspelt ones on to a broker that ignores them."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from taskapp.client.limits.options import OF_CALLS, OF_TYPES_ALONE
from taskapp.engine.headers import PROPERTIES
from taskapp.errors.limits import BadLimit
from taskapp.errors.tasks import UnknownOption

OPTIONS = frozenset({
    "add_to_parent", "argsrepr", "callbacks", "chain", "chord", "compression", "confirm_timeout", "connection",
    "content_encoding", "content_type", "correlation_id", "countdown", "deadline", "declare", "delivery_mode",
    "errbacks", "eta", "exchange", "exchange_type", "expires", "group_id", "group_index", "headers", "ignore_result",
    "immediate", "is_eager", "kwargsrepr", "link", "link_error", "logfile", "loglevel", "mandatory", "origin",
    "parent_id", "priority", "producer", "publisher", "queue", "replaced_task_nesting", "reply_to", "result_cls",
    "retries", "retry", "retry_policy", "root_id", "route_name", "router", "routing_key", "serializer", "shadow",
    "soft_time_limit", "stamped_headers", "stamps", "task_id", "task_type", "throw", "time_limit", "timeout",
    *OF_CALLS, *PROPERTIES,
})  # fmt: skip
"""All options that Celery, kombu or taskapp reads."""
OF_OTHER_BROKERS = frozenset({"DelaySeconds", "MessageDeduplicationId", "MessageGroupId"})
OF_DELIVERIES = frozenset({"consumer_tag", "delivery_tag", "redelivered"})
"""What Celery copies into a retry of a message that came through a named exchange."""
ALIKE = 0.85
"""Similarity, from 0 to 1, from which a name counts as misspelt; ``countdwn`` and ``countdown`` have 0.94."""


OF_RETRIES = frozenset({"args", "eta", "kwargs", "max_retries", "throw"})
"""What ``retry`` takes besides."""
NO_MORE: frozenset[str] = frozenset()


def check_names(name: str, options: Mapping[str, Any], app: Any, more: frozenset[str] = NO_MORE) -> None:
    """Check the names of options of a task of type ``name``.

    The app of a project accepts unknown ones, as Celery does, unless they resemble one; the app that ships accepts no
    other.

    Args:
        name: The task type.
        options: The options, of which only the names are read, and ``stamped_headers``: these name options, too.
        app: The app that submits.
        more: Names that are valid here besides ``OPTIONS``.

    Raises:
        BadLimit: A number that all tasks of a type share is given.
        UnknownOption: An option is misspelt.
    """
    if unknown := options.keys() - OPTIONS:
        unknown = unknown.difference(more, options.get("stamped_headers") or ())
        if not OF_TYPES_ALONE.isdisjoint(unknown):
            unknown = _check_shared(name, unknown, options)
        _check_unknown(name, unknown, OPTIONS | more, app)


def _check_shared(name: str, unknown: set[str], options: Mapping[str, Any]) -> set[str]:
    """Refuse the numbers of a task type, unless they are ``None``; return the other names."""
    changed_by = {"rate_limit": "--rate", "rate_burst": "--burst", "max_concurrency": "--at-once"}
    for option in sorted(OF_TYPES_ALONE & unknown):
        if options[option] is not None:
            problem = "all tasks of a type share it; declare it with the task type"
            if option in changed_by:
                problem += f"; to change it for all nodes: taskapp limits set {name} {changed_by[option]} NUMBER"
            raise BadLimit.of(name, option, options[option], problem)
    return unknown - OF_TYPES_ALONE


def _check_unknown(name: str, unknown: set[str], known: frozenset[str], app: Any) -> None:
    is_strict = getattr(app, "ships_task_types", False)
    for option in sorted(unknown - OF_OTHER_BROKERS - OF_DELIVERIES):
        if is_strict or get_close_matches(option, known, n=1, cutoff=ALIKE):
            raise UnknownOption.of(name, option, known)
