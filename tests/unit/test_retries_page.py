"""The examples and the errors on the page about retries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from taskapp import Backoff, Celery
from taskapp.engine.retry_budgets import LEAST_RETRIES
from taskapp.errors.retries import BadRetryOption, not_retried
from taskapp.testing import in_process
from taskapp.transport.attempts_header import ATTEMPTS_MOST, ERROR_BYTES_MOST
from tests.unit.test_limits_page import apart

PAGE = (Path(__file__).parents[2] / "docs/retries.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ERRORS = re.findall(r"^\| `(\w+)=(.*?)` \| `(task .*)` \|$", PAGE, re.MULTILINE)


@pytest.fixture
def page() -> Iterator[ModuleType]:
    """A module with all that the page declares, whose calls go to an engine in memory."""
    module = ModuleType("shop")
    exec(apart("\n".join(BLOCKS)), vars(module))
    with in_process(module.app):
        yield module


def test_the_types_on_the_page_wait_as_it_says(page: ModuleType) -> None:
    on = page.app.tasks["shop.charge"].declared_retries.on

    assert on == {
        TimeoutError: Backoff(1, 2, 60), ConnectionError: Backoff(10, 3, 600, max_retries=5),
        page.TooManyRequests: Backoff(30, 1),
    }  # fmt: skip
    assert page.app.tasks["shop.fetch"].declared_retries.budget.share == 0.1
    assert page.app.tasks["shop.notify"].declared_retries.budget.most == 20


def test_the_page_names_the_numbers_as_they_are() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE))

    assert list(table) == [field.name for field in fields(Backoff)]
    for field in fields(Backoff)[:4]:
        assert float(table[field.name].strip("`").replace("True", "1")) == float(field.default)
    assert f"but {LEAST_RETRIES} a minute always" in PAGE
    assert f"its last {ATTEMPTS_MOST} attempts: number, time, and up to {ERROR_BYTES_MOST} bytes" in PAGE
    assert not_retried("shop.notify", "20/m") in PAGE


@pytest.mark.parametrize(("option", "value", "text"), ERRORS)
def test_the_errors_on_the_page_are_those_that_users_see(option: str, value: str, text: str) -> None:
    app = Celery("shop", set_as_current=False, broker="redis://never.invalid")

    @app.task(name="shop.charge", shared=False, **{option: eval(value)})
    def charge() -> None: ...

    with pytest.raises(BadRetryOption) as caught:
        _ = app.tasks
    assert str(caught.value) == text
    assert len(ERRORS) == 3
