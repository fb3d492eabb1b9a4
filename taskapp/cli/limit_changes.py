"""Checks what ``taskapp limits`` is given for limits of tasks, and writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite

import click

from taskapp.app.declared_limits import declared_numbers
from taskapp.cli.included import import_included
from taskapp.cli.output import say
from taskapp.cli.target import chosen_app
from taskapp.client.limits.limiter import digest
from taskapp.client.limits.of_call import declared_by
from taskapp.client.limits.rates import MOST, BadRate, PerPeriod, read_rate
from taskapp.engine.limit_numbers import OF_RATES, OF_SLOTS, LimitNumbers, LimitsAdmin
from taskapp.engine.limits import LONGEST_KEY_BYTES
from taskapp.errors.limits import NoSuchLimit, UnknownLimit
from taskapp.monitor.limit_rows import UNLIMITED, numbers_text

LONGEST_PAUSE_SECONDS = 30 * 86_400
MOST_AT_ONCE = 1_000_000


def read_weight(text: str) -> tuple[str, float]:
    """Return key and weight of ``KEY=NUMBER``.

    Raises:
        click.BadParameter: It is something else.
    """
    key, sign, number = text.rpartition("=")
    try:
        weight = float(number)
    except ValueError:
        weight = 0.0
    if not sign or not (weight > 0 and isfinite(weight)):
        raise click.BadParameter(
            f"{text!r}: give KEY=NUMBER with a number above 0, as in acme=2", param_hint="--weight"
        )
    _check_key(key, "--weight")
    return key, weight


def set_numbers(
    admin: LimitsAdmin, name: str, rate: str | None, burst: float | None, at_once: str | None
) -> Iterator[str]:
    """Set numbers of the limit ``name``; yield what holds now.

    Raises:
        click.BadParameter: A number is invalid.
        UnknownLimit: No node and no code declares such a limit.
        NoSuchLimit: It has no number of this kind.
    """
    limit, most = _rate(rate), _at_once(at_once)
    found = _known(admin, name, [*(OF_RATES[:1] if rate or burst else ()), *(OF_SLOTS if at_once else ())])
    numbers: dict[str, float] = {}
    if limit is not None:
        numbers |= limit._asdict()
    if limit is not None or burst is not None:
        numbers["burst"] = burst or _burst(found, limit)
    if most is not None:
        numbers["most"] = most
    merged = {**found.set, **numbers}
    admin.set_limit(name, merged)
    in_force = {**found.declared, **merged}
    if limit is not None or burst is not None:
        yield f"rate {numbers_text({what: in_force[what] for what in OF_RATES if what in in_force})}"
    if most is not None:
        yield f"at once {numbers_text({'most': most})}"


def rate_key_of(admin: LimitsAdmin, name: str, key: str) -> str:
    """Return the key under which the rate ``name`` counts tasks whose ``rate_key`` gives ``key``.

    Raises:
        click.BadParameter: The rate has one key for all, or one for each value.
        UnknownLimit: No node and no code declares such a limit.
        NoSuchLimit: It is no rate.
    """
    _check_key(key, "--key")
    _known(admin, name, OF_RATES[:1])
    import_included(chosen_app())
    declared = declared_by(chosen_app().tasks.get(name))
    rate = declared.limiter.declared.rate if declared is not None and declared.limiter is not None else None
    if rate is None:
        if not key:
            remedy = "if it has a rate_key, this pauses nothing; give --key"
            say(f"the code of {name!r} is not loaded here (TASKAPP_INCLUDE, -A): {remedy}", err=True)
        return key
    if isinstance(rate.key.source, str):
        if key not in ("", rate.key.source):
            raise click.BadParameter(f"the rate of {name!r} counts all keys together; leave it out", param_hint="--key")
        return rate.key.source
    if not key:
        template = rate.key.source.text
        raise click.BadParameter(f"the rate of {name!r} counts for each {template}; give one", param_hint="--key")
    return digest(key.encode()) if rate.key.is_hidden else key


def _check_key(key: str, option: str) -> None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise click.BadParameter("the key is not valid Unicode", param_hint=option) from error
    if size > LONGEST_KEY_BYTES:
        raise click.BadParameter(f"the key has {size} bytes, more than {LONGEST_KEY_BYTES}", param_hint=option)


def _rate(text: str | None) -> PerPeriod | None:
    if text is None:
        return None
    if text == UNLIMITED:
        return PerPeriod(MOST, 1_000)
    try:
        found = read_rate(text)
    except BadRate as error:
        problem = str(error).replace("use None", f"use {UNLIMITED}")
        raise click.BadParameter(f"{text!r}: {problem}", param_hint="--rate") from error
    if found is None:
        raise click.BadParameter(f"{text!r}: use a rate such as 100/m, or {UNLIMITED}", param_hint="--rate")
    return found


def _at_once(text: str | None) -> float | None:
    if text is None:
        return None
    if text == UNLIMITED:
        return MOST
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:10]) <= MOST_AT_ONCE):
        problem = f"{text!r}: use a number of tasks from 1 to {MOST_AT_ONCE:,}, or {UNLIMITED}"
        raise click.BadParameter(problem, param_hint="--at-once")
    return int(text[:10])


def _burst(known: LimitNumbers, limit: PerPeriod | None) -> float:
    """Return the burst of a new rate: the one that the type declares, unless it only follows from its rate."""
    declared = known.declared
    burst = declared.get("burst")
    if limit is None or burst is None:
        return 1.0 if limit is None else limit.usual_burst
    usual = PerPeriod(declared.get("limit", 1), int(declared.get("period_ms", 1_000))).usual_burst
    return limit.usual_burst if burst == usual else burst


def _known(admin: LimitsAdmin, name: str, wanted: Sequence[str]) -> LimitNumbers:
    known = admin.read_limits()
    if not _has(known.get(name), wanted):
        import_included(chosen_app())
        for each, numbers in declared_numbers(chosen_app()).items():
            before = known.get(each, LimitNumbers(each, {}, {}))
            known[each] = before._replace(declared={**numbers, **before.declared})
    levels = sorted(each for each in known if each.startswith(f"{name}/"))
    if name not in known and not levels:
        raise UnknownLimit(name, known)
    found = known.get(name, LimitNumbers(name, {}, {}))
    for what in wanted:
        if not _has(found, [what]):
            is_of_slots = what in OF_SLOTS
            raise NoSuchLimit(name, "max_concurrency" if is_of_slots else "rate_limit", levels if is_of_slots else ())
    return found


def _has(numbers: LimitNumbers | None, wanted: Sequence[str]) -> bool:
    return numbers is not None and all(what in numbers.declared or what in numbers.set for what in wanted)
