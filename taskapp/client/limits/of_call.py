"""The limits of a call: those of its task type, changed by the call's own options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskapp.client.limits.arguments import ANY, Arguments
from taskapp.client.limits.declaration import Declaration, Value
from taskapp.client.limits.limiter import Limiter, UniqueOfType
from taskapp.client.limits.options import OF_CALLS, UNIQUE
from taskapp.errors.limits import BadLimit, LimitNeedsRedis
from taskapp.transport.limits_header import LIMITS_HEADER, in_header

KEYS = frozenset({"unique_key", "fair_key", "rate_key", "rate_cost", "concurrency_key"})
"""Options whose values in a call are what templates make of arguments elsewhere."""
KEPT = "a retry keeps the limits of its first run; remove it"
DUE = ("countdown", "eta")


class LimitsOfType:
    """What a task type declares; computes the limits of calls with options of their own."""

    def __init__(
        self, task: str, given: Mapping[str, Any], arguments: Arguments, masks: Sequence[str] = (), *,
        is_sensitive: bool = False,
    ) -> None:  # fmt: skip
        """Check the options in ``given``, see ``Declaration``; errors are those of ``Declaration.read``."""
        self.given = given
        """The options that are set, by name."""
        self._task, self._arguments = task, arguments
        self._masks, self._is_sensitive = masks, is_sensitive
        self.limiter = self._limiter(given)

    @property
    def is_unique(self) -> bool:
        """Whether tasks of the type are unique, unless a call says otherwise."""
        return self.limiter is not None and self.limiter.is_unique

    def of_call(self, options: Mapping[str, Any]) -> Limiter | None:
        """Return what computes the limits of calls with ``options``; ``None``: they have none.

        Raises:
            BadLimit, BadLimitKey: An option is invalid, has no effect, or contradicts another one.
        """
        if OF_CALLS.isdisjoint(options):
            limiter = self.limiter
        else:
            of_call = {name: options[name] for name in OF_CALLS & options.keys() if options[name] is not None}
            kept = self.given
            if of_call.get("unique") is False:
                kept = {name: value for name, value in kept.items() if name not in UNIQUE}
            values = {name: Value(value) if name in KEYS else value for name, value in of_call.items()}
            limiter = self._limiter({**kept, **values})
        if limiter is not None and limiter.declared.unique is not None:
            self._check_unique(limiter.declared.unique, options)
        return limiter

    def _check_unique(self, unique: UniqueOfType, options: Mapping[str, Any]) -> None:
        if options.get("chord") is not None:
            # A duplicate is not queued, and its part of the chord would never come.
            option = unique.key.option
            problem = "its chord would wait for a duplicate forever; use unique=False in the signature"
            raise BadLimit.of(self._task, option, options.get(option, self.given.get(option)), problem)
        for option in DUE if unique.debounce_ms else ():
            if options.get(option) is not None:
                problem = "debounce decides when the task is due; remove one of the two"
                raise BadLimit.of(self._task, option, options[option], problem)

    def _limiter(self, given: Mapping[str, Any]) -> Limiter | None:
        declaration = Declaration(
            self._task, given, self._arguments, self._masks, is_sensitive=self._is_sensitive
        )  # fmt: skip
        declared = declaration.read()
        return None if declared is None else Limiter(self._task, declared, self._arguments)


class KeptLimits:
    """The limits of a retry: those of its first run."""

    is_unique = False
    """It has the key already."""

    def __init__(self, limits: bytes) -> None:
        self.limits = limits

    def packed(self, _args: Sequence[Any], _kwargs: Mapping[str, Any]) -> bytes:
        """Return the limits."""
        return self.limits


def limiter_for(task: str, task_type: Any, options: Mapping[str, Any]) -> Limiter | KeptLimits | None:
    """Return what computes the limits of calls of ``task`` with ``options``; ``None``: they have none.

    Args:
        task: The task type.
        task_type: The same, if it is known in this process.
        options: Options of ``apply_async``.

    Raises:
        BadLimit, BadLimitKey: See ``LimitsOfType.of_call``.
    """
    headers = options.get("headers")
    if headers and LIMITS_HEADER in headers:
        for name in sorted(OF_CALLS & options.keys()):
            raise BadLimit.of(task, name, options[name], KEPT)
        return KeptLimits(in_header(headers[LIMITS_HEADER]))
    declared = declared_by(task_type)
    if declared is not None:
        return declared.of_call(options)
    return None if OF_CALLS.isdisjoint(options) else LimitsOfType(task, {}, ANY).of_call(options)


def may_be_limited(task_type: Any, options: Mapping[str, Any]) -> bool:
    """Return whether ``limiter_for`` may return something."""
    return not _NAMES.isdisjoint(options) or declared_by(task_type) is not None


_NAMES = OF_CALLS | {"headers"}


def check_broker(task: str, task_type: Any, options: Mapping[str, Any]) -> None:
    """Check that calls of ``task`` need no engine, because the broker has none.

    Raises:
        LimitNeedsRedis: They do.
    """
    declared = declared_by(task_type)
    of_type = declared.given if declared is not None else {}
    for name in (*of_type, *sorted(OF_CALLS & options.keys())):
        value = options.get(name, of_type.get(name))
        is_of_celery = name == "rate_limit" or (name == "rate_scope" and value == "node")
        if not is_of_celery and value not in (None, False):
            raise LimitNeedsRedis(task, name)
    if getattr(task_type, "retry_budget", None) is not None:
        raise LimitNeedsRedis(task, "retry_budget")


def declared_by(task_type: Any) -> LimitsOfType | None:
    """Return what a task type declares; ``None``: nothing, or it is not known."""
    if task_type is None:
        return None
    if not task_type.__bound__:
        _ = task_type.app  # binds it
    declared: LimitsOfType | None = getattr(task_type, "declared_limits", None)  # a stock task has none
    return declared
