"""The examples and the errors on the page about limits."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskapp import Celery, CircuitBreaker
from taskapp.client.limits.options import OF_CALLS, OF_TYPES, OF_TYPES_ALONE
from taskapp.errors.limits import BadLimit
from taskapp.testing import in_process

PAGE = (Path(__file__).parents[2] / "docs/limits.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
APART = {"@app.task(": "@app.task(shared=False, ", 'Celery("shop", ': 'Celery("shop", set_as_current=False, '}
"""Keeps what the page declares out of the apps of other tests."""
ERRORS = re.findall(r"^\| `(\w+)=(.*?)` \| `(task .*)` \|$", PAGE, re.MULTILINE)
HELPERS = ("words", "why")
"""Functions on the page that are no tasks."""


def apart(block: str) -> str:
    for given, kept in APART.items():
        block = block.replace(given, kept)
    return block


@pytest.fixture
def page() -> Iterator[ModuleType]:
    """A module with all that the page declares, whose calls go to an engine in memory."""
    module = ModuleType("shop")
    declared, *others = BLOCKS
    exec(apart(declared), vars(module))
    with in_process(module.app):
        for block in others:
            exec(apart(block), vars(module))
        yield module


def test_every_type_on_the_page_has_the_limits_it_declares(page: ModuleType) -> None:
    declared = {name: type(task).declared_limits for name, task in page.app.tasks.items() if name.startswith("shop.")}

    assert {name for name, limits in declared.items() if limits is not None} == {
        f"shop.{name}" for name in re.findall(r"^def (\w+)", "\n".join(BLOCKS), re.MULTILINE) if name not in HELPERS
    }
    limits = declared["shop.translate"].limiter.limits(("small", "one two three"), {})
    assert limits.rates[0].cost == 3
    assert limits.rates[0].limit == 5_000
    assert declared["shop.complete"].limiter.limits(("small", "Hello"), {"tokens": 120}).rates[0][1] == "small"
    deliver = declared["shop.deliver"].limiter
    assert deliver.declared.circuit == CircuitBreaker(5, None, 30, (ConnectionError, TimeoutError))
    assert deliver.limits((1,), {}).rates[0].cost == 0
    index = declared["shop.index"].limiter.limits(("report", ""), {}).unique
    assert index[3:] == ("latest", 5_000, 60_000)


@pytest.mark.parametrize(("option", "value", "text"), ERRORS)
def test_the_errors_on_the_page_are_those_that_users_see(option: str, value: str, text: str) -> None:
    app = Celery("shop", set_as_current=False, broker="redis://never.invalid")

    @app.task(name="shop.resize", shared=False, **{option: ast.literal_eval(value)})
    def resize(tenant: str, picture: str) -> Any: ...

    with pytest.raises(BadLimit) as caught:
        _ = app.tasks
    assert str(caught.value) == text


def test_the_page_names_every_option() -> None:
    of_tables = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)

    assert len(ERRORS) == 4
    of_breakers = {field.name for field in fields(CircuitBreaker)}
    assert {*of_tables, "fair_key"} == {*OF_TYPES, "rate_limit", *of_breakers}
    listed = PAGE.partition("Options of a call: ")[2].partition("Numbers that")[0]
    assert {*re.findall(r"`(\w+)`", listed)} == OF_CALLS
    arguments = PAGE.partition("| argument |")[2].partition("The circuit is *closed*")[0]
    assert re.findall(r"^\| `(\w+)` \|", arguments, re.MULTILINE) == [field.name for field in fields(CircuitBreaker)]
    shared = PAGE.partition("Numbers that")[2].partition("belong to the type")[0]
    assert {*re.findall(r"`(\w+)`", shared)} == OF_TYPES_ALONE
