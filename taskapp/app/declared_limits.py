"""The limits that a task type declares, and those of a running task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from taskapp.app.annotations import parameters_of
from taskapp.app.rate_pauses import pause_for
from taskapp.client.limits.arguments import ANY, Arguments
from taskapp.client.limits.circuit_breaker import CircuitBreaker
from taskapp.client.limits.of_call import KEPT, LimitsOfType, declared_by
from taskapp.client.limits.options import OF_CALLS, OF_TYPES
from taskapp.errors.limits import BadLimit
from taskapp.results.chords import FINISH_CHORD
from taskapp.transport.limits_header import LIMITS_HEADER
from taskapp.transport.transport import is_over_redis


class LimitedTask:
    """Options that limit the tasks of a type, see ``docs/limits.md``; ``None``: not limited."""

    unique: bool | Literal["type"] | None = None
    """Allow one task with the same arguments (``True``), or one of this type (``"type"``), at a time."""
    unique_key: str | None = None
    """Allow one task with this key at a time, a template of arguments: ``"{order_id}"``."""
    unique_for: Literal["start", "end"] | float | None = None
    """How long a task keeps others out: until it starts, until it ends (default), or for this many seconds."""
    on_duplicate: Literal["existing", "raise", "replace", "latest"] | None = None
    """Whether a further call gets the existing task, raises ``DuplicateTask``, replaces the arguments of a waiting one,
    or is the one that follows the running one."""
    debounce: float | None = None
    """Seconds by which each further call pushes a waiting task back."""
    debounce_at_most: float | None = None
    """Maximum number of seconds it is pushed back after its first call."""
    rate_burst: float | None = None
    """How many tasks may start at once within ``rate_limit``."""
    rate_key: str | None = None
    """Count the rate for each value of this template."""
    rate_cost: float | str | Callable[..., float] | None = None
    """Units of ``rate_limit`` that a task takes: a number, an argument (``"{tokens}"``) or a function of them."""
    rate_scope: Literal["cluster", "node"] | None = None
    """Whether ``rate_limit`` holds for all nodes together (default) or for each node, as in Celery."""
    max_concurrency: int | Mapping[str, int] | None = None
    """How many tasks run at once, on all nodes; ``{"{tenant}": 10, "all": 200}``: for each tenant, and for all."""
    concurrency_key: str | None = None
    """Count them for each value of this template."""
    on_busy: Literal["wait", "drop", "cancel"] | None = None
    """Whether a task that would be one too many waits (default), is dropped, or cancels a running one."""
    fair_key: str | None = None
    """Take turns between the values of this template."""
    circuit_breaker: CircuitBreaker | None = None
    """Start no task of this type for a while, on any node, after repeated errors of one kind."""
    declared_limits: LimitsOfType | None = None
    """What these options say; ``None``: nothing."""

    def pause_rate(self, seconds: float) -> None:
        """Let no task with the rate key of the running one start for ``seconds``, on any node, once this run ends.

        The pause holds however the run ends, and never shortens another one. A run that raises an error with
        ``retry_after_seconds`` pauses its key without this call. Does nothing outside a worker.

        Args:
            seconds: Counted from now; up to a day.

        Raises:
            NoRateToPause: The task has no ``rate_limit`` that holds for all nodes.
            LimitNeedsRedis: The broker is not Redis.
            BadPause: ``seconds`` is no such number.
        """
        pause_for(self, seconds)


OPTIONS = ("rate_limit", *OF_TYPES)


def limits_declared_by(task_type: Any) -> LimitsOfType | None:
    """Return the limits of ``task_type``, which is bound; ``None``: it declares none.

    Raises:
        BadLimit: An option is invalid, has no effect, or contradicts another one.
    """
    given = {name: value for name in OPTIONS if (value := getattr(task_type, name)) is not None}
    # A script puts the task that ends a chord in front of its queue: no default of the project may limit it.
    if not given or task_type.name == FINISH_CHORD:
        return None
    if "circuit_breaker" in given and not task_type.acks_late:
        remedy = "a run with acks_late=False is settled before it ends, so that its errors cannot count; remove one"
        raise BadLimit.of(task_type.name, "circuit_breaker", given["circuit_breaker"], remedy)
    try:
        arguments = Arguments(parameters_of(task_type._unchecked_run, bound=task_type._is_method))
    except (TypeError, ValueError):
        arguments = ANY  # its signature is unknown, as that of some functions in C
    return LimitsOfType(
        task_type.name, given, arguments, task_type.masks, is_sensitive=task_type.sensitive
    )  # fmt: skip


def declared_numbers(app: Any) -> dict[str, dict[str, float]]:
    """Return the numbers that the task types of ``app`` declare, by name of the limit."""
    numbers: dict[str, dict[str, float]] = {}
    for task in app.tasks.values():
        declared = declared_by(task)
        if declared is not None and declared.limiter is not None:
            numbers.update(declared.limiter.numbers())
    return numbers


def with_limits_of(task: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a retry of the running ``task``, with the limits that its first run has.

    Raises:
        BadLimit: An option would change them.
    """
    for name in sorted(OF_CALLS & options.keys()):
        raise BadLimit.of(task.name, name, options[name], KEPT)
    request = task.request
    limits = request.get(LIMITS_HEADER)
    if limits is None and (task.declared_limits is None or not is_over_redis(task.app.conf.broker_url)):
        return options
    headers = options.get("headers") or request.headers or {}
    return {**options, "headers": {**headers, LIMITS_HEADER: limits or ""}}
