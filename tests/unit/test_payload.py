from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from taskapp.app.payload import Payload
from taskapp.errors import InvalidPayload


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: int
    note: str = ""


def pay(order: Order, times: int = 1) -> None: ...


def pay_many(orders: list[Order], label: str | None = None) -> None: ...


def untyped(order, times=1): ...


def test_a_model_may_be_given_as_model_or_as_mapping() -> None:
    payload = Payload("shop.pay", pay, plain=False)

    assert payload.to_json([Order(id=1)], {}) == ([{"id": 1, "note": ""}], {})
    assert payload.to_json([], {"order": {"id": "2"}}) == ([], {"order": {"id": 2, "note": ""}})


def test_a_run_gets_the_model() -> None:
    assert Payload("shop.pay", pay, plain=False).to_python([{"id": 1}], {}) == ([Order(id=1)], {})


def test_models_inside_lists_are_checked() -> None:
    payload = Payload("shop.pay_many", pay_many, plain=False)

    with pytest.raises(InvalidPayload) as refusal:
        payload.to_json([[{"id": 1}, {"id": "x"}]], {})

    assert str(refusal.value) == (
        "invalid arguments for 'shop.pay_many': orders.1.id: "
        "input should be a valid integer, unable to parse string as an integer"
    )


def test_every_problem_is_named() -> None:
    with pytest.raises(InvalidPayload) as refusal:
        Payload("shop.pay", pay, plain=False).to_json([{"ident": 1}], {})

    assert str(refusal.value) == (
        "invalid arguments for 'shop.pay': order.id: field required; order.ident: extra inputs are not permitted"
    )


def test_plain_annotations_count_only_when_asked_for() -> None:
    assert Payload("shop.pay", pay, plain=False).to_json([Order(id=1), "many"], {})[0][1] == "many"
    with pytest.raises(InvalidPayload):
        Payload("shop.pay", pay, plain=True).to_json([Order(id=1), "many"], {})


def test_a_task_without_models_is_not_checked() -> None:
    assert not Payload("shop.untyped", untyped, plain=False)


def test_a_signature_checks_what_is_named_and_leaves_positions_open() -> None:
    payload = Payload("shop.pay", pay, plain=False)

    assert payload.named_to_json([Order(id=1), "later"], {}) == ([{"id": 1, "note": ""}, "later"], {})
    with pytest.raises(InvalidPayload):
        payload.named_to_json([], {"order": {"id": None}})


@given(st.integers(), st.text())
def test_what_was_submitted_is_what_runs(number: int, note: str) -> None:
    payload = Payload("shop.pay", pay, plain=False)
    order = Order(id=number, note=note)

    sent, _ = payload.to_json([order], {})

    assert payload.to_python(sent, {})[0] == [order]


def test_the_task_itself_is_no_argument_of_a_bound_task() -> None:
    def pay_bound(self, order: Order) -> None: ...

    payload = Payload("shop.pay_bound", pay_bound, plain=False, bound=True)

    assert payload.to_json([Order(id=1)], {}) == ([{"id": 1, "note": ""}], {})
    with pytest.raises(InvalidPayload):
        payload.to_json([{"id": "no"}], {})


def test_a_model_is_checked_that_its_module_imports_when_it_is_first_used(monkeypatch) -> None:
    names: dict[str, object] = {"Late": Order}
    late = ModuleType("late")
    late.__getattr__ = names.__getitem__
    exec("from __future__ import annotations\ndef pay(orders: list[Late], times: int): ...", vars(late))
    monkeypatch.setitem(sys.modules, "late", late)

    with pytest.raises(InvalidPayload, match=r"orders\.0\.id: field required"):
        Payload("late.pay", late.pay, plain=False).to_json([[{}], "many"], {})


def test_a_name_that_only_a_type_checker_can_resolve_is_not_checked() -> None:
    scope: dict[str, Any] = {"__name__": __name__}
    exec("from __future__ import annotations\ndef pay(order: Unknown, times: int): ...", scope)

    assert not Payload("shop.pay", scope["pay"], plain=False)
