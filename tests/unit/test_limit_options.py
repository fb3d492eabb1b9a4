"""What a task type declares about limits, and what single calls add: rules, errors, and the limits computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from math import inf, nan
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from taskapp.app.annotations import parameters_of
from taskapp.client.limits.arguments import Arguments, MissingArgument
from taskapp.client.limits.key_template import BadTemplate, KeyTemplate, NoValue
from taskapp.client.limits.limiter import SEPARATOR, Limiter
from taskapp.client.limits.of_call import LimitsOfType, limiter_for
from taskapp.client.limits.rates import BadRate, read_rate
from taskapp.client.option_names import check_names
from taskapp.engine.limits import MOST_BYTES, Concurrency, Limits, Rate, Unique, packed
from taskapp.errors.limits import BadLimit, BadLimitKey
from taskapp.errors.tasks import UnknownOption
from taskapp.transport.limits_header import LIMITS_HEADER, as_header
from tests.support import examples

NAME = "shop.charge"


def charge(tenant: str, order: Any = None, tokens: float = 1, *, user: int = 7) -> None: ...


def of(function: Callable[..., Any]) -> Arguments:
    return Arguments(parameters_of(function, bound=False))


def declare(function: Callable[..., Any] = charge, *, masks: Any = (), is_sensitive: bool = False, **given: Any) -> Any:
    return LimitsOfType(NAME, given, of(function), masks, is_sensitive=is_sensitive)


def limits_of(*args: Any, declared: dict[str, Any], **kwargs: Any) -> Limits:
    limiter: Limiter = declare(**declared).limiter
    limits = limiter.limits(args, kwargs)
    assert limiter.packed(args, kwargs) == packed(limits)
    return limits


# --- rates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        ("100/m", (100, 60_000)), ("2/h", (2, 3_600_000)), ("0.5/s", (0.5, 1_000)), (" 10 / m ", (10, 60_000)),
        (3, (3, 1_000)), (0.25, (0.25, 1_000)), ("7", (7, 1_000)), ("1e3/s", (1_000, 1_000)), (None, None), ("", None),
    ],
)  # fmt: skip
def test_rates_are_written_as_in_celery(value: Any, rate: Any) -> None:
    assert read_rate(value) == rate


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("100/x", "'x' is not a unit of time; use s, m or h"), ("100/min", "'min' is not"), ("5/", "'' is not"),
        ("x/m", "its number cannot be read"), ("/m", "its number cannot be read"), (True, "cannot be read"),
        ("nan/s", "cannot be read"), (inf, "cannot be read"), ((1, "m"), "cannot be read"), (b"1/m", "cannot be read"),
        (0, "above zero"), ("0/m", "above zero"), (-1, "above zero"), ("-1/h", "above zero"), (1e10, "is above"),
    ],
)  # fmt: skip
def test_what_is_no_rate_is_refused_with_the_reason(value: Any, problem: str) -> None:
    with pytest.raises(BadRate, match=problem):
        read_rate(value)
    with pytest.raises(BadLimit, match=f"task 'shop.charge' cannot have rate_limit=.*{problem}"):
        declare(rate_limit=value)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.binary(), st.lists(st.text()), st.none()))
@settings(max_examples=examples(300), deadline=None)
def test_any_rate_is_read_or_refused(value: Any) -> None:
    try:
        rate = read_rate(value)
    except BadRate:
        return
    assert rate is None or (rate.limit > 0 and rate.period_ms in (1_000, 60_000, 3_600_000) and rate.usual_burst >= 1)


@given(st.floats(1e-6, 1e9), st.sampled_from("smh"))
@settings(max_examples=examples(100), deadline=None)
def test_a_rate_means_the_same_as_in_celery(number: float, unit: str) -> None:
    from celery.utils.time import rate

    read = read_rate(f"{number!r}/{unit}")

    assert read is not None
    assert read.limit * 1_000 / read.period_ms == pytest.approx(rate(f"{number!r}/{unit}"))


# --- templates --------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Customer:
    id: int
    _token: str = "secret"


IDENTITY = UUID("8b8d1f3e-0000-4000-8000-000000000000")


@pytest.mark.parametrize(
    ("template", "args", "kwargs", "key"),
    [
        ("{tenant}", ("acme",), {}, "acme"),
        ("{tenant}", (), {"tenant": "acme"}, "acme"),
        ("{user}", ("acme",), {}, "7"),
        ("{user}", ("acme",), {"user": 8}, "8"),
        ("tenant-{tenant}", ("acme",), {}, "tenant-acme"),
        ("{{{tenant}}}", ("acme",), {}, "{acme}"),
        ("{order[id]}", ("acme", {"id": 5}), {}, "5"),
        ("{order.id}", ("acme", {"id": 5}), {}, "5"),
        ("{order.id}", ("acme", Customer(6)), {}, "6"),
        ("{order[customer][0].id}", ("acme", {"customer": [Customer(6)]}), {}, "6"),
        ("{order[_id]}", ("acme", {"_id": 5}), {}, "5"),
        ("{order[7]}", ("acme", {7: "x"}), {}, "x"),
        ("{order}", ("acme", IDENTITY), {}, str(IDENTITY)),
        ("{order}", ("acme", Decimal("1.50")), {}, "1.50"),
        ("{order}", ("acme", Colour.RED), {}, "red"),
        ("{order}", ("acme", Level.HIGH), {}, "3"),
        ("{order}", ("acme", datetime(2026, 1, 2, tzinfo=UTC)), {}, "2026-01-02 00:00:00+00:00"),
        ("{order}", ("acme",), {}, "None"),
        ("{tenant}:{user}", ("a:b",), {"user": "c"}, r"a\:b:c"),
        ("{tenant}:{user}", ("a",), {"user": r"b\c"}, r"a:b\\c"),
    ],
)  # fmt: skip
def test_a_template_makes_a_key_of_arguments(template: str, args: Any, kwargs: Any, key: str) -> None:
    assert KeyTemplate(template).fill(of(charge), args, kwargs) == key


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("tenant", r"it names no argument; put the name of one in braces, as in '\{tenant\}'"),
        ("", "it names no argument"),
        ("{{tenant}}", "it names no argument"),
        ("{tenat}", r"\{tenat\} names no argument of the task; did you mean '\{tenant\}'\? \(arguments: tenant, order"),
        ("{x}", r"names no argument of the task; use one of its arguments \(arguments"),
        ("{}", "names no argument"),
        ("{0}", "names no argument"),
        ("{tenant!r}", "formats and conversions are not supported"),
        ("{tenant:>10}", "formats and conversions are not supported"),
        ("{tenant:{user}}", "formats and conversions are not supported"),
        ("{tenant", "its braces do not match"),
        ("tenant}", "its braces do not match"),
        ("{tenant.__class__}", "reads a private attribute"),
        ("{order._token}", "reads a private attribute"),
        ("{tenant.}", "names no argument"),
        ("{tenant user}", "names no argument"),
        ("{tenant()}", "names no argument"),
        ("{tenant}{user}", "two arguments follow each other"),
        (5, "use a template of arguments"),
        (None, "use a template of arguments"),
        (lambda tenant: tenant, "use a template of arguments"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("option", ["fair_key", "rate_key", "concurrency_key", "unique_key"])
def test_a_template_that_is_wrong_is_refused_where_it_is_declared(template: Any, problem: str, option: str) -> None:
    with pytest.raises(BadLimit, match=f"task 'shop.charge' cannot have {option}=.*{problem}"):
        declare(**{"rate_limit": 1, "max_concurrency": 1, option: template})


@pytest.mark.parametrize(
    ("template", "args", "problem"),
    [
        ("{tenant}", (), "the argument 'tenant' is missing"),
        ("{order}", ("acme", {"id": 1}), r"\{order\} is a dict; name one of its values, as in \{order\[id\]\}"),
        ("{order}", ("acme", [1]), r"\{order\} is a list; use a text or number"),
        ("{order}", ("acme", b"x"), r"\{order\} is a bytes; use a text or number"),
        ("{order[id]}", ("acme", {}), r"\{order\[id\]\} leads nowhere \(KeyError"),
        ("{order[3]}", ("acme", [1]), r"leads nowhere \(IndexError"),
        ("{order[x]}", ("acme", [1]), r"leads nowhere \(ValueError"),
        ("{order.id}", ("acme", None), r"leads nowhere \(AttributeError"),
        ("{order[id]}", ("acme", Customer(1)), r"leads nowhere"),
        ("{tenant}", ("x" * 257,), r"'\{tenant\}' becomes a key of 257 bytes, more than 256; use a shorter value"),
        ("{tenant}", ("é" * 129,), "258 bytes"),
        ("{tenant}", ("\ud800",), "not valid Unicode"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_key_are_refused_at_the_caller(template: str, args: Any, problem: str) -> None:
    limiter = declare(fair_key=template).limiter

    with pytest.raises(BadLimitKey, match=f"task 'shop.charge' cannot be submitted: fair_key: .*{problem}"):
        limiter.packed(args, {})


def anything(*args: Any, **options: Any) -> None: ...


def rest(first: int, *others: int) -> None: ...


def test_functions_with_variable_arguments_accept_any_name_or_their_own() -> None:
    assert KeyTemplate("{tenant}").fill(of(anything), (), {"tenant": "acme"}) == "acme"
    assert KeyTemplate("{args[0]}:{options[tenant]}").fill(of(anything), (1, 2), {"tenant": "acme"}) == "1:acme"
    assert KeyTemplate("{others[1]}").fill(of(rest), (1, 2, 3), {}) == "3"
    with pytest.raises(BadTemplate, match="names no argument"):
        KeyTemplate("{tenant}").check(of(rest))
    with pytest.raises(NoValue, match="the argument 'tenant' is missing"):
        KeyTemplate("{tenant}").fill(of(anything), ("acme",), {})


VALUES = st.text(alphabet=":/\\ab{}", max_size=6)


@given(VALUES, VALUES, VALUES, VALUES, st.sampled_from(["{a}:{b}", "{a}/{b}/", "x{a}::{b}", "{a}\\{b}", "{a}a{b}"]))
@settings(max_examples=examples(500), deadline=None)
def test_two_calls_have_the_same_key_only_if_their_values_are_the_same(
    a: str, b: str, c: str, d: str, template: str
) -> None:
    assume((a, b) != (c, d))
    fill = KeyTemplate(template).fill

    assert fill(of(anything), (), {"a": a, "b": b}) != fill(of(anything), (), {"a": c, "b": d})


@given(st.text(alphabet="{}[]().:!_a0 \n", max_size=12))
@settings(max_examples=examples(500), deadline=None)
def test_any_text_is_a_template_or_refused(text: str) -> None:
    try:
        template = KeyTemplate(text)
    except BadTemplate:
        return
    for field in template.fields:
        assert field.name.isidentifier()
        assert not any(step.startswith("._") for step in field.steps)


def test_an_argument_that_a_call_lacks_is_named() -> None:
    with pytest.raises(MissingArgument, match="tenant"):
        of(charge).find("tenant", (), {})


# --- what is declared -------------------------------------------------------------------------------


def test_nothing_declared_means_no_limiter() -> None:
    assert declare().limiter is None
    assert declare(unique=False).limiter is None
    assert declare(rate_limit=None).limiter is None
    assert declare(rate_limit="5/s", rate_scope="node").limiter is None


def test_each_option_ends_up_in_the_limits() -> None:
    declared = {
        "fair_key": "{tenant}", "rate_limit": "100/m", "rate_burst": 20, "rate_key": "{user}", "rate_cost": "{tokens}",
        "max_concurrency": 5, "concurrency_key": "{tenant}", "on_busy": "drop",
        "unique_key": "{order}", "unique_for": 90, "on_duplicate": "raise",
    }  # fmt: skip

    assert limits_of("acme", 17, 250, user=3, declared=declared) == Limits(
        "acme",
        (Rate(NAME, "3", 100, 60_000, 20, 250),),
        (Concurrency(NAME, "acme", 5, "drop"),),
        Unique(f"{NAME}{SEPARATOR}17", "time", 90_000, "raise", 0, 0),
    )


def test_the_usual_values() -> None:
    assert limits_of("acme", declared={"rate_limit": "100/m"}).rates == (Rate(NAME, "", 100, 60_000, 1, 1),)
    assert limits_of("acme", declared={"rate_limit": "50/s"}).rates[0].burst == 5
    assert limits_of("acme", declared={"max_concurrency": 1}).slots == (Concurrency(NAME, "", 1, "wait"),)
    unique = limits_of("acme", declared={"unique": "type"}).unique
    assert unique == Unique(f"{NAME}{SEPARATOR}", "end", 0, "existing", 0, 0)


def test_two_levels_of_concurrency_have_a_name_each() -> None:
    declared = {"max_concurrency": {"{tenant}": 10, "all": 200}}

    assert limits_of("acme", declared=declared).slots == (
        Concurrency(f"{NAME}/{{tenant}}", "acme", 10), Concurrency(NAME, "", 200),
    )  # fmt: skip
    assert declare(**declared).limiter.numbers() == {f"{NAME}/{{tenant}}": {"most": 10}, NAME: {"most": 200}}
    both = declare(**declared, rate_limit="9/m").limiter.numbers()
    assert both[NAME] == {"limit": 9, "period_ms": 60_000, "burst": 1, "most": 200}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, ("latest", 5_000, 0)), ({"unique_for": "start"}, ("replace", 5_000, 0)),
        ({"debounce_at_most": 60}, ("latest", 5_000, 60_000)), ({"on_duplicate": "existing"}, ("existing", 5_000, 0)),
    ],
)  # fmt: skip
def test_a_debounced_task_runs_with_the_latest_arguments_unless_told_otherwise(options: Any, found: Any) -> None:
    unique = limits_of("acme", declared={"unique_key": "{tenant}", "debounce": 5, **options}).unique

    assert unique is not None
    assert unique[3:] == found


@pytest.mark.parametrize(
    ("options", "option", "problem"),
    [
        ({"unique": "yes"}, "unique", r"use True \(one for the same arguments\) or 'type'"),
        ({"unique": "{order}"}, "unique", "declared with unique_key='{order}'"),
        ({"unique": 1}, "unique", "use True"),
        ({"unique": "type", "unique_key": "{order}"}, "unique_key", "contradicts unique='type'"),
        ({"unique": False, "unique_key": "{order}"}, "unique_key", "has no effect without unique=True"),
        ({"on_duplicate": "raise"}, "on_duplicate", "has no effect without unique=True"),
        ({"unique_for": 5}, "unique_for", "has no effect without unique"),
        ({"debounce": 5}, "debounce", "has no effect without unique"),
        ({"unique": True, "on_duplicate": "rase"}, "on_duplicate", "'existing', 'raise', 'replace' or 'latest'"),
        ({"unique": True, "unique_for": "ever"}, "unique_for", "use 'start', 'end', or a number of seconds"),
        ({"unique": True, "unique_for": 0}, "unique_for", "seconds above 0"),
        ({"unique": True, "unique_for": nan}, "unique_for", "seconds above 0"),
        ({"unique": True, "unique_for": 10**10}, "unique_for", "at most ten years"),
        ({"unique": True, "unique_for": True}, "unique_for", "seconds above 0"),
        ({"unique": True, "unique_for": "start", "on_duplicate": "latest"}, "on_duplicate", "needs unique_for='end'"),
        ({"unique": True, "unique_for": 5, "on_duplicate": "latest"}, "on_duplicate", "needs unique_for='end'"),
        ({"unique": True, "debounce": 0}, "debounce", "seconds above 0"),
        ({"unique": True, "debounce": "5"}, "debounce", "seconds above 0"),
        ({"unique": True, "debounce": 5, "unique_for": 60}, "debounce", "contradicts unique_for=seconds"),
        ({"unique": True, "debounce": 5, "on_duplicate": "raise"}, "on_duplicate", "remove debounce"),
        ({"unique": True, "debounce_at_most": 5}, "debounce_at_most", "no effect without debounce"),
        ({"unique": True, "debounce": 5, "debounce_at_most": 4}, "debounce_at_most", "not be less than debounce"),
        ({"rate_key": "{tenant}"}, "rate_key", "no effect without rate_limit"),
        ({"rate_burst": 5}, "rate_burst", "no effect without rate_limit"),
        ({"rate_cost": 5}, "rate_cost", "no effect without rate_limit"),
        ({"rate_scope": "node"}, "rate_scope", "no effect without rate_limit"),
        ({"rate_limit": 1, "rate_scope": "nodes"}, "rate_scope", "use 'cluster' or 'node'"),
        ({"rate_limit": 1, "rate_scope": "node", "rate_key": "{tenant}"}, "rate_key", "needs rate_scope='cluster'"),
        ({"rate_limit": 1, "rate_scope": "node", "rate_burst": 5}, "rate_burst", "needs rate_scope='cluster'"),
        ({"rate_limit": 1, "rate_scope": "node", "rate_cost": 5}, "rate_cost", "needs rate_scope='cluster'"),
        ({"rate_limit": 1, "rate_burst": 0}, "rate_burst", "1 or more"),
        ({"rate_limit": 1, "rate_burst": "5"}, "rate_burst", "1 or more"),
        ({"rate_limit": 1, "rate_cost": -1}, "rate_cost", "a number, 0 or more"),
        ({"rate_limit": 1, "rate_cost": inf}, "rate_cost", "a number, 0 or more"),
        ({"rate_limit": 1, "rate_cost": True}, "rate_cost", "a number, 0 or more"),
        ({"rate_limit": 1, "rate_cost": [1]}, "rate_cost", "a number, 0 or more"),
        ({"rate_limit": 1, "rate_cost": "{token}"}, "rate_cost", r"did you mean '\{tokens\}'"),
        ({"rate_limit": 1, "rate_cost": "x{tokens}"}, "rate_cost", "name one argument and nothing else"),
        ({"rate_limit": 1, "rate_cost": "{tokens}/{user}"}, "rate_cost", "name one argument and nothing else"),
        ({"concurrency_key": "{tenant}"}, "concurrency_key", "no effect without max_concurrency"),
        ({"on_busy": "drop"}, "on_busy", "no effect without max_concurrency"),
        ({"max_concurrency": 0}, "max_concurrency", "a number of tasks from 1"),
        ({"max_concurrency": "5"}, "max_concurrency", "a number of tasks from 1"),
        ({"max_concurrency": 1.5}, "max_concurrency", "a number of tasks from 1"),
        ({"max_concurrency": True}, "max_concurrency", "a number of tasks from 1"),
        ({"max_concurrency": {}}, "max_concurrency", "use up to 4 levels"),
        ({"max_concurrency": {"{tenant}": 0, "all": 5}}, "max_concurrency", "a number of tasks from 1"),
        ({"max_concurrency": {"tenant": 5}}, "max_concurrency", "it names no argument"),
        ({"max_concurrency": {"{tenat}": 5}}, "max_concurrency", "did you mean"),
        ({"max_concurrency": {"{tenant}": 5}, "concurrency_key": "{user}"}, "concurrency_key", "remove one of the two"),
        ({"max_concurrency": 5, "on_busy": "block"}, "on_busy", "use 'wait', 'drop' or 'cancel'"),
    ],
)  # fmt: skip
def test_an_option_that_is_wrong_or_has_no_effect_is_refused(options: Any, option: str, problem: str) -> None:
    with pytest.raises(BadLimit, match=f"^task 'shop.charge' cannot have {option}=.*: .*{problem}"):
        declare(**options)


def test_the_whole_sentence_of_an_error() -> None:
    with pytest.raises(BadLimit) as caught:
        declare(fair_key="{tenat}")

    assert str(caught.value) == (
        "task 'shop.charge' cannot have fair_key='{tenat}': {tenat} names no argument of the task; did you mean "
        "'{tenant}'? (arguments: tenant, order, tokens, user)"
    )


# --- unique by arguments ----------------------------------------------------------------------------


def key_of(*args: Any, **kwargs: Any) -> str:
    unique = limits_of(*args, declared={"unique": True}, **kwargs).unique
    assert unique is not None
    return unique.key


def test_calls_with_the_same_arguments_have_one_key_however_they_are_given() -> None:
    keys = {
        key_of("acme"), key_of(tenant="acme"), key_of("acme", None), key_of("acme", order=None, user=7),
        key_of("acme", None, 1), key_of(user=7, tenant="acme"),
    }  # fmt: skip

    assert len(keys) == 1
    assert key_of("acme", {"a": 1, "b": [2]}) == key_of("acme", {"b": (2,), "a": 1})


def test_calls_with_other_arguments_have_other_keys() -> None:
    keys = [
        key_of("acme"), key_of("acm"), key_of("acme", 1), key_of("acme", "1"), key_of("acme", [1]), key_of("acme", {}),
        key_of("acme", user=8), key_of("acme", IDENTITY), key_of("acme", datetime(2026, 1, 2, tzinfo=UTC)),
        key_of("acme", {"a": 1}), key_of("acme", {"a": {"a": 1}}),
    ]  # fmt: skip

    assert len({*keys}) == len(keys)
    assert all(len(key.partition(SEPARATOR)[2]) == 32 for key in keys)


def test_arguments_that_json_cannot_represent_need_a_key_of_their_own() -> None:
    with pytest.raises(BadLimitKey, match=r"unique: JSON cannot represent its arguments .*unique_key"):
        key_of("acme", object())


# --- costs ------------------------------------------------------------------------------------------


def cost_of(cost: Any, *args: Any, **kwargs: Any) -> float:
    return limits_of(*args, declared={"rate_limit": 1, "rate_cost": cost}, **kwargs).rates[0].cost


def test_a_cost_is_a_number_an_argument_or_a_function_of_the_arguments() -> None:
    assert cost_of(2.5, "acme") == 2.5
    assert cost_of(0, "acme") == 0
    assert cost_of("{tokens}", "acme", None, 30) == 30
    assert cost_of("{order[tokens]}", "acme", {"tokens": 12}) == 12
    assert cost_of(lambda tenant, order, **_: len(order), "acme", "abcd", user=1) == 4


@pytest.mark.parametrize(
    ("cost", "args", "problem"),
    [
        ("{tokens}", ("acme", None, -1), r"\{tokens\} is -1; a cost is a number, 0 or more"),
        ("{tokens}", ("acme", None, "5"), r"\{tokens\} is '5'"), ("{tokens}", ("acme", None, nan), "is nan"),
        ("{order[tokens]}", ("acme", {}), "leads nowhere"),
        (lambda *_: None, ("acme",), "its function returned None"), (lambda *_: -3, ("acme",), "returned -3"),
        (lambda: 1, ("acme",), r"its function failed \(TypeError"),
    ],
)  # fmt: skip
def test_a_cost_that_is_no_number_is_refused_at_the_caller(cost: Any, args: Any, problem: str) -> None:
    with pytest.raises(BadLimitKey, match=f"task 'shop.charge' cannot be submitted: rate_cost: .*{problem}"):
        cost_of(cost, *args)


# --- hidden values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("masks", "is_sensitive", "template", "shows"),
    [
        ((), False, "{tenant}", True), (("tenant",), False, "{tenant}", False), (("user",), False, "{tenant}", True),
        (("token",), False, "{order[token]}", False), (("token",), False, "{order.token}", False),
        ((), True, "{tenant}", False),
    ],
)  # fmt: skip
def test_a_key_of_a_hidden_argument_is_a_digest(masks: Any, is_sensitive: bool, template: str, shows: bool) -> None:
    order = {"token": "acme"}
    keys = [
        declare(fair_key=template, masks=masks, is_sensitive=is_sensitive).limiter.limits((value, order), {}).fair_key
        for value in ("acme", "acme")
    ]

    assert keys[0] == keys[1]
    assert (keys[0] == "acme") is shows
    assert shows or len(keys[0]) == 32


# --- options of one call ----------------------------------------------------------------------------


def of_call(declared: dict[str, Any], options: dict[str, Any], *args: Any) -> Limits | None:
    limiter = declare(**declared).of_call(options)
    return None if limiter is None else limiter.limits(args or ("acme",), {})


def test_a_call_gives_values_in_place_of_templates() -> None:
    declared = {
        "fair_key": "{tenant}", "rate_limit": 1, "max_concurrency": 1, "unique_key": "{order}", "rate_cost": "{tokens}",
    }  # fmt: skip
    options = {"fair_key": "f", "rate_key": "r", "rate_cost": 9, "concurrency_key": 8, "unique_key": IDENTITY,
               "on_duplicate": "replace", "on_busy": "cancel", "countdown": 5}  # fmt: skip

    limits = of_call(declared, options)

    assert limits is not None
    assert (limits.fair_key, limits.rates[0].key, limits.rates[0].cost) == ("f", "r", 9)
    assert limits.slots[0] == Concurrency(NAME, "8", 1, "cancel")
    assert limits.unique == Unique(f"{NAME}{SEPARATOR}{IDENTITY}", "end", 0, "replace")


def test_a_call_alone_may_be_unique_and_fair() -> None:
    limits = of_call({}, {"unique_key": "nightly", "fair_key": "acme"})

    assert limits == Limits("acme", unique=Unique(f"{NAME}{SEPARATOR}nightly"))


def test_a_call_of_a_unique_type_need_not_be_unique() -> None:
    assert of_call({"unique": True, "on_duplicate": "raise"}, {"unique": False}) is None
    limits = of_call({"unique": True}, {"unique": None, "fair_key": None})
    assert limits is not None
    assert limits.unique is not None


@pytest.mark.parametrize(
    ("declared", "options", "problem"),
    [
        ({}, {"rate_key": "x"}, "rate_key='x': it has no effect without rate_limit"),
        ({}, {"rate_cost": 5}, "rate_cost=5: it has no effect without rate_limit"),
        ({}, {"concurrency_key": "x"}, "no effect without max_concurrency"),
        ({}, {"on_duplicate": "raise"}, "no effect without unique"),
        ({"max_concurrency": {"{tenant}": 1}}, {"concurrency_key": "x"}, "remove one of the two"),
        ({"unique": True}, {"on_duplicate": "rise"}, "use 'existing'"),
        ({"rate_limit": 1}, {"rate_cost": "5"}, "rate_cost='5': use a number"),
        ({"unique": True, "debounce": 5}, {"countdown": 3}, "countdown=3: debounce decides when"),
        ({"unique": True, "debounce": 5}, {"eta": datetime(2026, 1, 2, tzinfo=UTC)}, "debounce decides when"),
    ],
)  # fmt: skip
def test_an_option_of_a_call_that_is_wrong_or_has_no_effect_is_refused(
    declared: Any, options: Any, problem: str
) -> None:
    with pytest.raises(BadLimit, match=f"task 'shop.charge' cannot have .*{problem}"):
        of_call(declared, options)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("x" * 257, "it has 257 bytes, more than 256"), ("{tenant}", "is a template; pass the key itself"),
        (b"x", "is a bytes; use a text or number"), ({"id": 1}, "is a dict"), ("\ud800", "not valid Unicode"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("option", ["fair_key", "unique_key", "rate_key", "concurrency_key"])
def test_a_key_of_a_call_that_is_none_is_refused(option: str, key: Any, problem: str) -> None:
    with pytest.raises(BadLimitKey, match=f"task 'shop.charge' cannot be submitted: {option}: .*{problem}"):
        of_call({"rate_limit": 1, "max_concurrency": 1}, {option: key})


@pytest.mark.parametrize("key", ["{}", "{unknown}", "{tenant", "a{b}c", "x" * 256])
def test_braces_in_the_key_of_a_call_are_only_text(key: str) -> None:
    limits = of_call({}, {"fair_key": key})

    assert limits is not None
    assert limits.fair_key == key


def test_a_type_that_is_not_known_here_may_have_options_in_a_call() -> None:
    limiter = limiter_for("elsewhere", None, {"fair_key": "acme"})

    assert limiter is not None
    assert limiter.packed((1,), {}) == packed(Limits("acme"))
    assert limiter_for("elsewhere", None, {"countdown": 3}) is None


def test_a_retry_keeps_the_limits_of_its_first_run() -> None:
    kept = packed(Limits("acme"))

    limiter = limiter_for("elsewhere", None, {"headers": {LIMITS_HEADER: as_header(kept)}, "countdown": 3})
    assert limiter is not None
    assert limiter.packed((), {}) == kept
    limiter = limiter_for("elsewhere", None, {"headers": {LIMITS_HEADER: ""}})
    assert limiter is not None
    assert limiter.packed((), {}) == b""
    with pytest.raises(BadLimit, match="fair_key='other': a retry keeps the limits of its first run; remove it"):
        limiter_for("elsewhere", None, {"headers": {LIMITS_HEADER: ""}, "fair_key": "other"})


@pytest.mark.parametrize("option", ["rate_limit", "rate_burst", "rate_scope", "max_concurrency"])
def test_numbers_belong_to_the_type(option: str) -> None:
    with pytest.raises(BadLimit, match=f"cannot have {option}=5: all tasks of a type share it; declare it"):
        check_names(NAME, {option: 5}, None)


@pytest.mark.parametrize("option", ["uniqe_key", "fair_keys", "on_duplicat", "debounc", "concurrency_kye"])
def test_a_misspelt_option_of_a_call_is_refused(option: str) -> None:
    with pytest.raises(UnknownOption, match=f"there is no option '{option}'; did you mean"):
        check_names(NAME, {option: 5}, None)


def test_options_of_others_are_left_alone() -> None:
    check_names(NAME, {"countdown": 5, "tenant_hint": 1, "fair_key": "x", "rate_limit": None}, None)
    check_names(NAME, {"stamped_headers": ["fair_keys"], "fair_keys": 1}, None)
    with pytest.raises(UnknownOption):
        check_names(NAME, {"fair_keys": 1}, None)


# --- the size of it ---------------------------------------------------------------------------------


def test_the_longest_limits_fit_into_a_message() -> None:
    def many(a: str, b: str, c: str, d: str) -> None: ...

    long = "k" * 256
    given = {
        "fair_key": "{a}", "rate_limit": 1, "rate_key": "{a}", "unique_key": "{a}",
        "max_concurrency": {"{a}": 1, "{b}": 2, "{c}": 3, "all": 4},
    }  # fmt: skip
    limiter = LimitsOfType("n" * 255, given, of(many)).limiter

    assert limiter is not None
    assert len(limiter.packed((long, long, long, long), {})) <= MOST_BYTES


def test_limits_without_arguments_are_packed_once() -> None:
    limiter = declare(rate_limit=1, max_concurrency=5).limiter

    assert limiter.packed(("a",), {}) is limiter.packed(("b",), {})
