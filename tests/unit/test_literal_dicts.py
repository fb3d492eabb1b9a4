"""A dict that looks like kombu's way of writing a type comes back as the dict it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from celery.app import backends
from hypothesis import example, given
from hypothesis import strategies as st
from kombu.serialization import dumps, loads

from taskapp.client.protocol import arguments_as_json
from taskapp.results.literal_dicts import as_literal, writing_literals

TYPES = st.sampled_from(["datetime", "decimal", "bytes", "uuid", "nosuch", "taskapp.dict", "", None, 7])
keys = st.one_of(st.sampled_from(["__type__", "__value__"]), st.text(max_size=5))
values = st.recursive(
    st.one_of(st.text(max_size=8), st.integers(), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(keys, inner, max_size=4),
        st.fixed_dictionaries({"__type__": st.one_of(TYPES, inner), "__value__": inner}),
    ),
    max_leaves=15,
)


@given(value=values)
@example({"__type__": "taskapp.dict", "__value__": [["a", 1]]})
@example({"__type__": "datetime", "__value__": {"__type__": "decimal", "__value__": "x"}})
def test_what_json_can_hold_arrives_as_it_was_submitted(value: Any) -> None:
    arguments = arguments_as_json("shop.kind", [value], {"named": value}, 1 << 20)

    args, kwargs = loads(arguments, "application/json", "utf-8", accept={"application/json"})

    assert (args, kwargs) == ([value], {"named": value})
    assert [type(one) for one in args] == [type(value)]


@given(value=values)
def test_what_is_not_such_a_dict_is_written_as_it_is(value: Any) -> None:
    written = as_literal(value)

    assert loads(dumps(written, "json")[2], "application/json", "utf-8", accept={"application/json"}) == value
    if '"__type__"' not in json.dumps(value):
        assert written is value


@pytest.mark.parametrize("value", [datetime(2026, 1, 2, tzinfo=UTC), Decimal("1.5"), b"abc", UUID(int=7)])
def test_types_that_json_lacks_are_still_types_beside_such_a_dict(value: Any) -> None:
    whole = [value, {"__type__": "datetime", "__value__": value}]
    text = arguments_as_json("shop.kind", whole, {}, 1 << 20)

    args, _ = loads(text, "application/json", "utf-8", accept={"application/json"})

    assert args == whole


def test_what_is_nested_too_deep_is_left_to_who_writes_it() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]

    assert as_literal(deep) is deep


@pytest.mark.parametrize("url", ["cache+memory://", "rpc://", "db+sqlite:///:memory:"])
def test_backends_of_celery_write_such_dicts_as_they_are_and_can_be_pickled(url: str) -> None:
    given, address = backends.by_url(url)
    app = Celery(set_as_current=False)
    backend = writing_literals(given)(app=app, url=address)
    value = {"__type__": "decimal", "__value__": "x"}

    assert backend.decode(backend.encode({"result": value})) == {"result": value}
    assert backend.__reduce__()[1][0] is given
    assert isinstance(backend, given)
