"""The option ``circuit_breaker``: what is accepted, and what the messages of its type carry."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from taskapp import Celery, CircuitBreaker
from taskapp.client.limits.of_call import check_broker
from taskapp.engine.circuits import gates_of
from taskapp.engine.limits import Limits, packed
from taskapp.errors import PermanentError
from taskapp.errors.limits import BadCircuitBreaker, BadLimit, LimitNeedsRedis
from taskapp.transport.limits_header import as_header, is_rated, rate_in
from taskapp.worker.run.circuits import counts


def declared(broker: str = "redis://never.invalid", **options: Any) -> Any:
    app = Celery("shop", set_as_current=False, broker=broker)

    @app.task(name="shop.call", shared=False, **options)
    def call(tenant: str = "") -> None: ...

    return app.tasks["shop.call"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"failures": 0}, "CircuitBreaker(failures=0) is invalid: use a number from 1 to 10,000"),
        ({"failures": True}, "use a number from 1"),
        ({"failures": 2.5}, "use a number from 1"),
        ({"failures": 10_001}, "use a number from 1"),
        ({"within": 0}, "CircuitBreaker(within=0) is invalid: use a number of seconds up to a day, or None: in a row"),
        ({"within": "1m"}, "or None: in a row"),
        ({"open_for": -1}, "CircuitBreaker(open_for=-1) is invalid: use a number of seconds, up to a day"),
        ({"open_for": float("nan")}, "up to a day"),
        ({"open_for": 1e6}, "up to a day"),
        ({"errors": TimeoutError}, "use a tuple of classes of errors, as in (TimeoutError,)"),
        ({"errors": ()}, "use a tuple of classes"),
        ({"errors": ("TimeoutError",)}, "use a tuple of classes"),
        ({"errors": (KeyboardInterrupt,)}, "use a tuple of classes"),
    ],
)
def test_an_invalid_breaker_is_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadCircuitBreaker, match=re.escape(problem)):
        CircuitBreaker(**values)


def test_a_type_cannot_have_one_that_does_nothing() -> None:
    with pytest.raises(BadLimit, match=re.escape("circuit_breaker=5: use CircuitBreaker(failures=5, open_for=30)")):
        declared(circuit_breaker=5)
    with pytest.raises(BadLimit, match=r"circuit_breaker=CircuitBreaker.*acks_late=False is settled before it ends"):
        declared(circuit_breaker=CircuitBreaker(), acks_late=False)
    with pytest.raises(BadLimit, match="all tasks of a type share it"):
        declared().apply_async(circuit_breaker=CircuitBreaker())
    task = declared("amqp://never.invalid", circuit_breaker=CircuitBreaker())
    with pytest.raises(LimitNeedsRedis, match="'circuit_breaker'"):
        check_broker("shop.call", task, {})


def test_its_gates_come_before_other_limits_and_are_no_rate_of_the_type() -> None:
    task = declared(circuit_breaker=CircuitBreaker(), max_concurrency=2, on_busy="drop")
    gate, slot = gates_of("shop.call")
    limits = msgspec.msgpack.decode(task.declared_limits.limiter.packed((), {}), type=Limits)

    assert limits.rates == (gate,)
    assert (limits.slots[0], limits.slots[1].on_busy) == (slot, "drop")
    assert rate_in(as_header(packed(limits))) is None
    assert not task.declared_limits.limiter.is_rated
    rated = declared(circuit_breaker=CircuitBreaker(), rate_limit="5/s")
    header = as_header(rated.declared_limits.limiter.packed((), {}))
    assert rate_in(header).name == "shop.call"  # type: ignore[union-attr]
    assert is_rated({"taskapp_limits": header})


def test_permanent_errors_never_count() -> None:
    assert counts(CircuitBreaker(), ValueError())
    assert not counts(CircuitBreaker(), PermanentError("x"))
    assert not counts(CircuitBreaker(errors=(OSError,)), ValueError())
    assert counts(CircuitBreaker(errors=(OSError,)), ConnectionError())
    assert not counts(CircuitBreaker(), None)
