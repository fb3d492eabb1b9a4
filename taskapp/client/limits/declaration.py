"""Reads and checks the options that limit a task type, alone or together with those of one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import Any, NamedTuple, get_args

from taskapp.client.limits.arguments import Arguments
from taskapp.client.limits.circuit_breaker import CircuitBreaker
from taskapp.client.limits.key_template import BadTemplate, KeyTemplate
from taskapp.client.limits.limiter import (
    Cost,
    Declared,
    EachArguments,
    Key,
    RateOfType,
    SlotsOfType,
    UniqueOfType,
    digest,
    key_of_call,
)
from taskapp.client.limits.options import CONCURRENCY, RATE, UNIQUE
from taskapp.client.limits.rates import BadRate, read_rate
from taskapp.engine.limits import OnBusy, OnDuplicate, Until
from taskapp.errors.limits import BadLimit

LONGEST_SECONDS = 3_650 * 86_400
MOST_AT_ONCE = 1_000_000
LEVELS_MOST = 4
ALL = "all"
"""The level of ``max_concurrency`` that counts all tasks of the type."""
SCOPES = ("cluster", "node")


class Value(NamedTuple):
    """A value that a call gives, which is no template."""

    value: Any


class Declaration:
    """The options of one task type, some of them perhaps those of a call.

    Args:
        task: Name of the task type.
        given: Options that are set: name to value; keys of calls as ``Value``.
        arguments: What templates may name.
        masks: Arguments whose values are hidden, see ``Task.masks``.
        is_sensitive: Whether all are.
    """

    def __init__(
        self, task: str, given: Mapping[str, Any], arguments: Arguments, masks: Sequence[str] = (), *,
        is_sensitive: bool = False,
    ) -> None:  # fmt: skip
        self._task, self._given, self._arguments = task, given, arguments
        self._masks, self._is_sensitive = masks, is_sensitive

    def read(self) -> Declared | None:
        """Return what the options declare; ``None``: nothing.

        Raises:
            BadLimit: An option is invalid, has no effect, or contradicts another one.
            BadLimitKey: A key that a call gives is invalid.
        """
        fair_key = self._key("fair_key") if "fair_key" in self._given else None
        declared = Declared(fair_key, self._rate(), tuple(self._slots()), self._unique(), self._circuit())
        return declared if declared != Declared() else None

    def _circuit(self) -> CircuitBreaker | None:
        value = self._given.get("circuit_breaker")
        if value is not None and not isinstance(value, CircuitBreaker):
            raise self._bad("circuit_breaker", "use CircuitBreaker(failures=5, open_for=30)")
        return value

    # --- unique -----------------------------------------------------------------------------------

    def _unique(self) -> UniqueOfType | None:
        get = self._given.get
        mode = get("unique")
        if not (mode is None or isinstance(mode, bool) or mode == "type"):
            key = f"; a template of a key is declared with unique_key={mode!r}" if "{" in str(mode) else ""
            raise self._bad("unique", f"use True (one for the same arguments) or 'type' (one of this type){key}")
        if not (mode or (mode is None and "unique_key" in self._given)):
            self._refuse(UNIQUE[1:], "it has no effect without unique=True or unique_key='{…}'")
            return None
        if mode == "type" and "unique_key" in self._given:
            raise self._bad("unique_key", "it contradicts unique='type', one task of this type; remove one")
        until, keep_ms = self._until()
        debounce_ms, longest_ms = self._debounce(until)
        return UniqueOfType(
            self._unique_key(mode), until, keep_ms, self._on_duplicate(until, debounce_ms), debounce_ms, longest_ms
        )

    def _unique_key(self, mode: Any) -> Key | EachArguments:
        if "unique_key" in self._given:
            return self._key("unique_key")
        return Key("unique", "") if mode == "type" else EachArguments("unique")

    def _until(self) -> tuple[Until, int]:
        value = self._given.get("unique_for", "end")
        if value in ("start", "end"):
            return value, 0
        if isinstance(value, str):
            raise self._bad("unique_for", "use 'start', 'end', or a number of seconds")
        return "time", self._ms("unique_for")

    def _on_duplicate(self, until: Until, debounce_ms: int) -> OnDuplicate:
        usual = "existing" if not debounce_ms else "replace" if until == "start" else "latest"
        found: OnDuplicate = self._word("on_duplicate", usual, get_args(OnDuplicate))
        if found == "latest" and until != "end":
            # The key is free, or not for the task that ends, so that there never is one running and one waiting.
            raise self._bad("on_duplicate", "'latest' needs unique_for='end'; use 'replace', or remove unique_for")
        if found == "raise" and debounce_ms:
            raise self._bad("on_duplicate", "a debounced task is pushed back by further calls; remove debounce")
        return found

    def _debounce(self, until: Until) -> tuple[int, int]:
        if "debounce" not in self._given:
            self._refuse(("debounce_at_most",), "it has no effect without debounce=seconds")
            return 0, 0
        if until == "time":
            raise self._bad("debounce", "it contradicts unique_for=seconds; use unique_for='end' or 'start'")
        debounce_ms = self._ms("debounce")
        longest_ms = self._ms("debounce_at_most") if "debounce_at_most" in self._given else 0
        if longest_ms and longest_ms < debounce_ms:
            raise self._bad("debounce_at_most", "it must not be less than debounce")
        return debounce_ms, longest_ms

    # --- rate -------------------------------------------------------------------------------------

    def _rate(self) -> RateOfType | None:
        try:
            rate = read_rate(self._given.get("rate_limit"))
        except BadRate as error:
            raise self._bad("rate_limit", str(error)) from error
        if rate is None:
            self._refuse(RATE, "it has no effect without rate_limit, as in rate_limit='100/m'")
            return None
        if self._word("rate_scope", "cluster", SCOPES) == "node":
            self._refuse(RATE[:-1], "it needs rate_scope='cluster': the limit of a node has neither keys nor costs")
            return None
        burst = rate.usual_burst
        if "rate_burst" in self._given:
            burst = self._number("rate_burst", "use a number of starts (or units of rate_cost), 1 or more", least=1)
        return RateOfType(*rate, burst, self._key_or_all("rate_key"), self._cost())

    def _cost(self) -> Cost:
        value = self._given.get("rate_cost", 1)
        if isinstance(value, Value):
            value = value.value
        elif isinstance(value, str):
            template = self._template("rate_cost", value)
            if f"{{{template.fields[0].text}}}" != value:
                raise self._bad("rate_cost", "name one argument and nothing else, as in '{tokens}'")
            return Cost(template.fields[0])
        elif callable(value):
            return Cost(value)
        problem = "use a number, 0 or more, an argument such as '{tokens}', or a function of the arguments"
        return Cost(self._number_of("rate_cost", value, problem, least=0))

    # --- concurrency ------------------------------------------------------------------------------

    def _slots(self) -> Iterator[SlotsOfType]:
        value = self._given.get("max_concurrency")
        if value is None:
            self._refuse(CONCURRENCY[1:], "it has no effect without max_concurrency")
            return
        on_busy: OnBusy = self._word("on_busy", "wait", get_args(OnBusy))
        if not isinstance(value, Mapping):
            most = self._at_once(value)
            yield SlotsOfType(self._task, most, self._key_or_all("concurrency_key"), on_busy)
            return
        if "concurrency_key" in self._given:
            raise self._bad("concurrency_key", "max_concurrency has the keys of its levels; remove one of the two")
        if not 1 <= len(value) <= LEVELS_MOST:
            raise self._bad(
                "max_concurrency", f"use up to {LEVELS_MOST} levels, as in {{'{{tenant}}': 10, 'all': 200}}"
            )
        for level, number in value.items():
            most = self._at_once(number)
            if level == ALL:
                yield SlotsOfType(self._task, most, Key("max_concurrency", ""), on_busy)
            else:
                key = self._key_from("max_concurrency", level)
                yield SlotsOfType(f"{self._task}/{level}", most, key, on_busy)

    def _at_once(self, number: Any) -> int:
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST_AT_ONCE:
            problem = "use a number of tasks from 1, or one for each level, as in {'{tenant}': 10, 'all': 200}"
            raise self._bad("max_concurrency", problem)
        return number

    # --- values -----------------------------------------------------------------------------------

    def _key_or_all(self, option: str) -> Key:
        return self._key(option) if option in self._given else Key(option, "")

    def _key(self, option: str) -> Key:
        return self._key_from(option, self._given[option])

    def _key_from(self, option: str, given: Any) -> Key:
        if isinstance(given, Value):
            key = key_of_call(self._task, option, given.value, self._arguments)
            return Key(option, digest(key.encode()) if self._is_sensitive else key)
        template = self._template(option, given)
        names = {part.strip(".[]") for field in template.fields for part in (field.name, *field.steps)}
        return Key(option, template, self._is_sensitive or not names.isdisjoint(self._masks))

    def _template(self, option: str, text: Any) -> KeyTemplate:
        if not isinstance(text, str):
            raise self._bad(option, "use a template of arguments, such as '{tenant}'")
        try:
            template = KeyTemplate(text)
            template.check(self._arguments)
        except BadTemplate as error:
            raise self._bad(option, str(error)) from error
        return template

    def _word(self, option: str, usual: str, words: Sequence[str]) -> Any:
        value = self._given.get(option, usual)
        if value not in words:
            raise self._bad(option, f"use {', '.join(map(repr, words[:-1]))} or {words[-1]!r}")
        return value

    def _ms(self, option: str) -> int:
        problem = "use a number of seconds above 0, at most ten years"
        seconds = self._number(option, problem, least=0.001)
        if seconds > LONGEST_SECONDS:
            raise self._bad(option, problem)
        return round(seconds * 1_000)

    def _number(self, option: str, problem: str, *, least: float) -> float:
        return self._number_of(option, self._given[option], problem, least=least)

    def _number_of(self, option: str, value: Any, problem: str, *, least: float) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not isfinite(value) or value < least:
            raise self._bad(option, problem)
        return float(value)

    def _refuse(self, options: Sequence[str], problem: str) -> None:
        for option in options:
            if option in self._given:
                raise self._bad(option, problem)

    def _bad(self, option: str, problem: str) -> BadLimit:
        value = self._given[option]
        return BadLimit.of(self._task, option, value.value if isinstance(value, Value) else value, problem)
