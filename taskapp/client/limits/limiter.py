"""Computes the limits of single tasks from what their type declares: prepared once, then fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from math import isfinite
from numbers import Real
from typing import Any, NamedTuple

import msgspec
from kombu.utils.json import JSONEncoder

from taskapp.client.limits.arguments import Arguments
from taskapp.client.limits.circuit_breaker import CircuitBreaker
from taskapp.client.limits.key_template import KeyTemplate, NoValue, TemplateField, text_of
from taskapp.engine.circuits import gates_of
from taskapp.engine.limits import (
    LONGEST_KEY_BYTES,
    Concurrency,
    Limits,
    OnBusy,
    OnDuplicate,
    Rate,
    Unique,
    Until,
    packed,
)
from taskapp.errors.limits import BadLimitKey

SEPARATOR = "\x1f"
"""Between the task type and the value of a unique key."""
_canonical = msgspec.json.Encoder(order="deterministic", enc_hook=JSONEncoder().default).encode
ArgumentsOfCall = tuple[Sequence[Any], Mapping[str, Any]]


class Key(NamedTuple):
    """Where the key of a limit comes from."""

    option: str
    """The option that declares it."""
    source: KeyTemplate | str
    """A template, or the key itself; the empty text: one key for all."""
    is_hidden: bool = False
    """Whether its values are hidden, so that the key is a digest."""


class EachArguments(NamedTuple):
    """A key made of all arguments."""

    option: str


class Cost(NamedTuple):
    """What a task costs, in units of the rate."""

    source: float | TemplateField | Callable[..., Any]


class RateOfType(NamedTuple):
    """A rate and where key and cost come from."""

    limit: float
    period_ms: int
    burst: float
    key: Key
    cost: Cost


class SlotsOfType(NamedTuple):
    """A level of concurrency and where its key comes from."""

    name: str
    most: int
    key: Key
    on_busy: OnBusy


class UniqueOfType(NamedTuple):
    """Uniqueness and where its key comes from."""

    key: Key | EachArguments
    until: Until
    keep_ms: int
    on_duplicate: OnDuplicate
    debounce_ms: int
    longest_ms: int


class Declared(NamedTuple):
    """What a task type declares, checked."""

    fair_key: Key | None = None
    rate: RateOfType | None = None
    slots: tuple[SlotsOfType, ...] = ()
    unique: UniqueOfType | None = None
    circuit: CircuitBreaker | None = None


class Limiter:
    """Computes the limits of the tasks of one type."""

    def __init__(self, name: str, declared: Declared, arguments: Arguments) -> None:
        self.name, self.declared, self._arguments = name, declared, arguments
        keys = (declared.fair_key, *(rate.key for rate in self._rates()), *(level.key for level in declared.slots))
        is_fixed = declared.unique is None and all(key is None or isinstance(key.source, str) for key in keys)
        self._of_circuit = () if declared.circuit is None else (gates_of(name),)
        is_fixed = is_fixed and all(isinstance(rate.cost.source, float) for rate in self._rates())
        self._fixed = packed(self.limits((), {})) if is_fixed else None

    @property
    def is_rated(self) -> bool:
        """Whether starts of its tasks count against a rate for all nodes."""
        return self.declared.rate is not None

    @property
    def is_unique(self) -> bool:
        """Whether another task may have the key of its tasks."""
        return self.declared.unique is not None

    def numbers(self) -> dict[str, dict[str, float]]:
        """Return the numbers of its limits: name of the limit → name of the number → number, see ``LimitNumbers``."""
        numbers: dict[str, dict[str, float]] = {}
        for rate in self._rates():
            numbers[self.name] = {"limit": rate.limit, "period_ms": rate.period_ms, "burst": rate.burst}
        for level in self.declared.slots:
            numbers.setdefault(level.name, {})["most"] = level.most
        return numbers

    def packed(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Return the limits of a task with these arguments, as messages carry them; errors are those of ``limits``."""
        return self._fixed if self._fixed is not None else packed(self.limits(args, kwargs))

    def limits(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Limits:
        """Return the limits of a task with these arguments.

        Raises:
            BadLimitKey: An argument makes no key, or the key has more than 256 bytes; or the cost is not a number
                from zero.
        """
        declared, call = self.declared, (args, kwargs)
        return Limits(
            "" if declared.fair_key is None else self._key(declared.fair_key, call),
            # First, so that tasks wait for the circuit, and no other limit drops or cancels one while it is open.
            (*(gate for gate, _ in self._of_circuit), *(self._rate(rate, call) for rate in self._rates())),
            (
                *(slot for _, slot in self._of_circuit),
                *(Concurrency(one.name, self._key(one.key, call), one.most, one.on_busy) for one in declared.slots),
            ),
            None if declared.unique is None else self._unique(declared.unique, call),
        )

    def _rates(self) -> tuple[RateOfType, ...]:
        return () if self.declared.rate is None else (self.declared.rate,)

    def _rate(self, rate: RateOfType, call: ArgumentsOfCall) -> Rate:
        cost = self._cost(rate.cost, call)
        return Rate(self.name, self._key(rate.key, call), rate.limit, rate.period_ms, rate.burst, cost)

    def _unique(self, unique: UniqueOfType, call: ArgumentsOfCall) -> Unique:
        value = self._digest_of_all(call) if isinstance(unique.key, EachArguments) else self._key(unique.key, call)
        return Unique(f"{self.name}{SEPARATOR}{value}", *unique[1:])

    def _key(self, key: Key, call: ArgumentsOfCall) -> str:
        if isinstance(key.source, str):
            return key.source
        try:
            text = key.source.fill(self._arguments, *call)
        except NoValue as error:
            raise BadLimitKey.of(self.name, key.option, str(error)) from error
        if key.is_hidden:
            return digest(text.encode(errors="surrogatepass"))
        return checked_key(self.name, key.option, text, f"{key.source.text!r} becomes a key of")

    def _digest_of_all(self, call: ArgumentsOfCall) -> str:
        try:
            return digest(_canonical(self._arguments.all(*call)))
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"JSON cannot represent its arguments ({error}); name those that count with unique_key"
            raise BadLimitKey.of(self.name, "unique", problem) from error

    def _cost(self, cost: Cost, call: ArgumentsOfCall) -> float:
        if isinstance(cost.source, float):
            return cost.source
        args, kwargs = call
        if isinstance(cost.source, TemplateField):
            try:
                value = cost.source.value(self._arguments, args, kwargs)
            except NoValue as error:
                raise BadLimitKey.of(self.name, "rate_cost", str(error)) from error
            return checked_cost(self.name, value, f"{{{cost.source.text}}} is")
        try:
            value = cost.source(*args, **kwargs)
        except Exception as error:
            problem = f"its function failed ({type(error).__name__}: {error})"
            raise BadLimitKey.of(self.name, "rate_cost", problem) from error
        return checked_cost(self.name, value, "its function returned")


def digest(content: bytes) -> str:
    """Return a digest of 32 characters."""
    return blake2b(content, digest_size=16).hexdigest()


def checked_key(task: str, option: str, key: str, what: str) -> str:
    """Return ``key``, which ``what`` introduces in errors.

    Raises:
        BadLimitKey: It has more than 256 bytes, or is not valid Unicode.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise BadLimitKey.of(task, option, f"the key is not valid Unicode ({error.reason}); use valid text") from error
    if size > LONGEST_KEY_BYTES:
        problem = f"{what} {size} bytes, more than {LONGEST_KEY_BYTES}; use a shorter value, such as an id or a digest"
        raise BadLimitKey.of(task, option, problem)
    return key


def checked_cost(task: str, cost: Any, what: str) -> float:
    """Return ``cost``, which ``what`` introduces in errors.

    Raises:
        BadLimitKey: It is not a number from zero.
    """
    if not isinstance(cost, bool) and isinstance(cost, Real) and isfinite(cost) and float(cost) >= 0:
        return float(cost)
    shown = repr(cost)[:80]
    raise BadLimitKey.of(task, "rate_cost", f"{what} {shown}; a cost is a number, 0 or more")


def key_of_call(task: str, option: str, value: Any, arguments: Arguments) -> str:
    """Return the key that an option of a call gives.

    Raises:
        BadLimitKey: It is neither text nor a number; it is too long; or it is a template, as in a declaration.
    """
    try:
        key = text_of(value, option)
    except NoValue as error:
        raise BadLimitKey.of(task, option, str(error)) from error
    if "{" in key:
        _refuse_template(task, option, key, arguments)
    return checked_key(task, option, key, "it has")


def _refuse_template(task: str, option: str, key: str, arguments: Arguments) -> None:
    try:
        fields = KeyTemplate(key).fields
    except ValueError:
        return
    if all(field.name in arguments.names for field in fields):
        problem = f"{key!r} is a template; pass the key itself, or declare the template with the task type"
        raise BadLimitKey.of(task, option, problem)
