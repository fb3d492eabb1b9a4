"""Options about retries: what is accepted, how long a task waits, what its message keeps."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from celery.exceptions import Ignore
from hypothesis import given
from hypothesis import strategies as st

from taskapp import Backoff, Celery
from taskapp.client.limits.of_call import check_broker
from taskapp.errors import PermanentError
from taskapp.errors.limits import LimitNeedsRedis
from taskapp.errors.retries import BadBackoff, BadRetryOption
from taskapp.testing import in_process
from taskapp.transport.attempts_header import (
    ATTEMPTS_HEADER,
    ATTEMPTS_MOST,
    ERROR_BYTES_MOST,
    Attempt,
    attempts_in,
    with_attempt,
)


class Busy(ConnectionError):
    """A server is busy."""


def app_with(broker: str = "redis://never.invalid", **options: Any) -> Celery:
    app = Celery("shop", set_as_current=False, broker=broker)

    @app.task(name="shop.call", shared=False, **options)
    def call() -> None: ...

    return app


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("retry_on", (TimeoutError,), "use classes of errors with their times, as in {TimeoutError: Backoff(first=1)}"),
        ("retry_on", {}, "use classes of errors"),
        ("retry_on", {"TimeoutError": Backoff()}, "'TimeoutError' is not a class of errors"),
        ("retry_on", {KeyboardInterrupt: Backoff()}, "is not a class of errors"),
        ("retry_on", {PermanentError: Backoff()}, "PermanentError is never retried; remove it"),
        ("retry_on", {Ignore: Backoff()}, "Ignore is never retried"),
        ("retry_on", {TimeoutError: Backoff}, "the value of TimeoutError is not a Backoff; use Backoff(first=1)"),
        ("retry_on", {TimeoutError: 5}, "the value of TimeoutError is not a Backoff"),
        ("retry_budget", 0, "use a share of its runs, above 0 and below 1, or a number of retries such as '20/m'"),
        ("retry_budget", 1, "use a share"),
        ("retry_budget", True, "use a share"),
        ("retry_budget", float("nan"), "use a share"),
        ("retry_budget", "20", "use a share"),
        ("retry_budget", "20/x", "'x' is not a unit of time; use s, m or h"),
        ("retry_budget", "0/m", "it must be above zero"),
        ("retry_budget", [1], "use a share"),
    ],
)
def test_an_invalid_option_is_refused_when_the_app_is_put_together(option: str, value: object, remedy: str) -> None:
    with pytest.raises(BadRetryOption, match=rf"^task 'shop.call' cannot have {option}=.*{re.escape(remedy)}"):
        _ = app_with(**{option: value}).tasks


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(BadRetryOption, match="TimeoutError is in dont_autoretry_for as well; remove it from one"):
        _ = app_with(retry_on={TimeoutError: Backoff()}, dont_autoretry_for=(TimeoutError,)).tasks
    with pytest.raises(BadRetryOption, match="acks_late=False is sent while it runs, and cannot be withdrawn"):
        _ = app_with(retry_budget="5/m", acks_late=False).tasks


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ({"first": -1}, "Backoff(first=-1) is invalid: use a number of seconds from 0"),
        ({"first": "1"}, "Backoff(first='1') is invalid: use a number"),
        ({"first": True}, "use a number"),
        ({"first": float("inf")}, "use a number"),
        ({"factor": 0.5}, "Backoff(factor=0.5) is invalid: use 1 or more"),
        ({"first": 10, "most": 5}, "Backoff(most=5) is invalid: use a number of seconds from first to ten years"),
        ({"most": 1e12}, "to ten years"),
        ({"jitter": 1}, "Backoff(jitter=1) is invalid: use True or False"),
        ({"max_retries": -1}, "Backoff(max_retries=-1) is invalid: use a number from 0, or None"),
        ({"max_retries": 1.5}, "use a number from 0, or None"),
    ],
)
def test_an_invalid_backoff_is_refused(numbers: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadBackoff, match=re.escape(problem)):
        Backoff(**numbers)


def test_a_retry_budget_needs_redis() -> None:
    app = app_with("amqp://never.invalid", retry_budget=0.1)

    with pytest.raises(LimitNeedsRedis, match="'retry_budget'"):
        check_broker("shop.call", app.tasks["shop.call"], {})  # as a node does when it starts


@given(
    first=st.floats(0, 1e6), factor=st.floats(1, 1e6), most=st.floats(1e6, 1e8), retries=st.integers(0, 10**6),
    jitter=st.booleans(),
)  # fmt: skip
def test_a_backoff_grows_to_its_maximum_and_never_beyond(
    first: float, factor: float, most: float, retries: int, jitter: bool
) -> None:
    backoff = Backoff(first, factor, most, jitter=jitter)

    assert 0 <= backoff.seconds(retries) <= most
    if not jitter:
        assert backoff.seconds(0) == first
        assert backoff.seconds(retries) <= backoff.seconds(retries + 1)


# --- how long a task waits --------------------------------------------------------------------------


def waits(raised: Exception, **options: Any) -> list[float]:
    """Run a task that raises ``raised`` until it fails; return how long it waited before each retry, seconds."""
    app, starts = Celery("shop", set_as_current=False, broker="redis://never.invalid"), []
    explicit = options.pop("explicit", None)

    with in_process(app) as tasks:

        @app.task(name="shop.call", shared=False, bind=True, **options)
        def call(self: Any) -> None:
            starts.append(tasks.now.timestamp())
            if explicit is not None:
                raise self.retry(exc=raised, **explicit)
            raise raised

        result = call.delay()
        tasks.advance("1h", keep_failures=True)
        assert result.state == "FAILURE"
    return [round(after - before, 3) for before, after in pairwise(starts)]


TIMES: dict[type[Exception], Backoff] = {
    TimeoutError: Backoff(10, 3, 60, jitter=False),
    OSError: Backoff(1, 1, jitter=False, max_retries=2),
    Busy: Backoff(100, jitter=False),
    LookupError: Backoff(max_retries=0),
}


def test_each_error_has_its_own_times_and_the_closest_class_counts() -> None:
    assert waits(TimeoutError(), retry_on=TIMES, max_retries=4) == [10, 30, 60, 60]
    assert waits(ConnectionError(), retry_on=TIMES, max_retries=4) == [1, 1]
    assert waits(Busy(), retry_on=TIMES, max_retries=2) == [100, 200]
    assert waits(KeyError(), retry_on=TIMES) == []
    assert waits(ValueError(), retry_on=TIMES) == []


def test_it_goes_together_with_celerys_options() -> None:
    celerys = {"autoretry_for": (Exception,), "retry_backoff": 5, "retry_jitter": False}

    assert waits(ValueError(), retry_on=TIMES, max_retries=2, **celerys) == [5, 10]
    assert waits(TimeoutError(), retry_on=TIMES, max_retries=2, **celerys) == [10, 30]
    kwargs = {"retry_kwargs": {"max_retries": 1, "countdown": 7}}
    assert waits(TimeoutError(), retry_on=TIMES, **kwargs) == [10]
    assert waits(ConnectionError(), retry_on=TIMES, **kwargs) == [1, 1]
    assert waits(Busy(), retry_on=TIMES, max_retries=2, dont_autoretry_for=(ConnectionError,)) == []


def test_a_retry_by_the_task_itself_waits_as_long_unless_it_says_otherwise() -> None:
    assert waits(TimeoutError(), retry_on=TIMES, max_retries=2, explicit={}) == [10, 30]
    assert waits(TimeoutError(), retry_on=TIMES, max_retries=2, explicit={"countdown": 4}) == [4, 4]
    assert waits(TimeoutError(), retry_on=TIMES, explicit={"max_retries": 1}) == [10]


def test_a_server_that_says_when_to_call_again_is_not_called_earlier() -> None:
    busy = Busy()
    busy.retry_after_seconds = 150  # type: ignore[attr-defined]

    assert waits(busy, retry_on=TIMES, max_retries=2) == [150, 200]


# --- the attempts of a task -------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 4e9), st.text(max_size=400)), max_size=25))
def test_the_attempts_in_a_message_are_bounded_in_number_and_bytes(attempts: list[tuple[int, float, str]]) -> None:
    headers: dict[str, Any] = {}
    for each in attempts:
        headers = {ATTEMPTS_HEADER: with_attempt(headers, Attempt(*each))}

    found = attempts_in(headers)
    assert [attempt.number for attempt in found] == [each[0] for each in attempts[-ATTEMPTS_MOST:]]
    assert all(len(attempt.error.encode()) <= ERROR_BYTES_MOST for attempt in found)
    assert all(str(attempt) for attempt in found)


@pytest.mark.parametrize(
    "forged",
    [None, "x", 5, [1], [[1, 2]], [["1", 2.0, ""]], [[1, "x", ""]], [[1, 1e300, ""]], [[1, 1.0, "x" * 500]], {"a": 1}],
)
def test_forged_attempts_are_left_out(forged: object) -> None:
    assert attempts_in({ATTEMPTS_HEADER: forged}) == []
    kept = Attempt(2, 5.0, "TimeoutError: late")
    assert attempts_in({ATTEMPTS_HEADER: with_attempt({ATTEMPTS_HEADER: forged}, kept)}) == [kept]


@pytest.mark.parametrize(("options", "error"), [({}, "ValueError: 4711"), ({"masks": ("card",)}, "ValueError")])
def test_the_message_keeps_no_error_text_of_a_type_that_hides_arguments(options: Any, error: str) -> None:
    app = Celery("shop", set_as_current=False, broker="redis://never.invalid")
    seen: list[Any] = []

    @app.task(name="shop.pay", shared=False, bind=True, retry_on={ValueError: Backoff()}, max_retries=1, **options)
    def pay(self: Any, card: str) -> None:
        seen.append((attempts_in(self.request), self.request.headers))
        raise ValueError(card)

    with in_process(app) as tasks:
        pay.delay("4711")
        tasks.advance("1d", keep_failures=True)

    (first, first_headers), (second, second_headers) = seen
    assert (first, first_headers, second_headers) == ([], None, None)
    assert [(attempt.number, attempt.error) for attempt in second] == [(1, error)]


def test_a_task_type_that_declares_nothing_is_asked_nothing() -> None:
    task = app_with().tasks["shop.call"]

    assert task.declared_retries == ({}, None)
