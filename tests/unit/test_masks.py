"""What is masked is never shown, and looking for it is bounded work."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskapp.app import masks
from taskapp.app.masks import HIDDEN, MASK, PIECE, Masked, masked
from tests.support import examples


def login(user: str, password: str, form: Any = None) -> None:
    """A task that masks its password, and what stands under ``token``."""


TASK = SimpleNamespace(masks=("password", "token"), _unchecked_run=login, _is_method=False)

values = st.recursive(
    st.one_of(st.text(max_size=30), st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=12), st.just("token"), st.just("x")), inner, max_size=4),
    ),
    max_leaves=12,
)


def texts_in(value: Any) -> list[str]:
    """Every text in ``value``, keys included."""
    if isinstance(value, dict):
        return [text for key, inside in value.items() for text in (str(key), *texts_in(inside))]
    if isinstance(value, list):
        return [text for inside in value for text in texts_in(inside)]
    return [value] if isinstance(value, str) else []


@given(password=values, token=values, rest=values, before=st.text(max_size=30), behind=st.text(max_size=30))
@settings(max_examples=examples(300), deadline=None)
@pytest.mark.parametrize("form", [str, repr, json.dumps])
def test_no_masked_text_of_eight_characters_is_shown(
    form: Any, password: Any, token: Any, rest: Any, before: str, behind: str
) -> None:
    args, kwargs = ("ann", password), {"form": {"rest": rest, "deep": [{"token": token}]}}
    seen = masked(TASK, args, kwargs)
    quoted = f"ValueError: {before}{form((args, kwargs))}{behind}"

    shown = seen.strike(quoted) + seen.strike(form(password)) + seen.strike(before + form(token))

    public = {piece for text in (*texts_in(rest), before, behind) for piece in (text,)}
    for secret in texts_in(password) + texts_in(token):
        if len(secret) >= PIECE and not any(secret in text for text in public):
            assert secret not in shown
            assert repr(secret)[1:-1] not in shown
            assert json.dumps(secret)[1:-1] not in shown
    assert seen.args[1] == MASK
    assert seen.kwargs["form"]["deep"] == [{"token": MASK}]


@given(
    secrets=st.lists(st.text(alphabet="abcdef", min_size=1, max_size=20), max_size=8),
    parts=st.lists(st.one_of(st.integers(0, 7), st.text(alphabet="abcdefg ", max_size=10)), max_size=12),
)
@settings(max_examples=examples(300), deadline=None)
def test_no_value_is_left_in_a_text_made_of_values(secrets: list[str], parts: list[int | str]) -> None:
    seen = masked(TASK, ("ann", secrets), {})
    text = "".join(secrets[part % len(secrets)] if isinstance(part, int) and secrets else str(part) for part in parts)

    shown = seen.strike(text)

    assert [secret for secret in secrets if secret in shown] == []


class Counted(str):
    """A text that counts how many characters were compared with it."""

    compared = 0

    def replace(self, old: str, new: str, count: Any = -1) -> Counted:
        Counted.compared += len(self)
        return Counted(super().replace(old, new, count))

    def __getitem__(self, index: Any) -> str:
        Counted.compared += 1
        return super().__getitem__(index)


@pytest.mark.quick("10-1", "1000000-300", "10000-15000", "20000000-200000")
@pytest.mark.parametrize("values_number", [1, 300, 15_000, 200_000])
@pytest.mark.parametrize("size", [10, 10_000, 1_000_000, 20_000_000])
def test_looking_for_values_is_bounded_work_however_many_there_are_and_however_long_the_text(
    values_number: int, size: int
) -> None:
    form = {f"k{n}": {"token": f"value-{n:09}"} for n in range(values_number)}
    seen = masked(TASK, (), {"form": form})
    text = Counted("ValueError: cannot use value-000000000 " + "x" * size)
    Counted.compared = 0

    shown = seen.strike(text)

    assert len(seen.secrets or ()) <= masks.VALUES_MOST * 3
    assert Counted.compared <= masks.COMPARED_MOST + masks.PIECES_MOST
    assert "value-000000000" not in shown
    assert shown.startswith("ValueError")


def test_one_long_value_is_bounded_work_too() -> None:
    seen = masked(TASK, ("ann", "s" * 50_000_000), {})

    assert seen.strike("KeyError: " + "s" * 100) == "KeyError"


def test_keys_under_a_masked_name_are_masked() -> None:
    seen = masked(TASK, ("ann", {"hunter2-hunter2": 1}), {})

    assert "hunter2" not in seen.strike("KeyError: 'hunter2-hunter2'")


@pytest.mark.parametrize("text", ["hunter2hunter2: it was wrong", "hunter2hunter2.x: no", "a" * 300 + ": no"])
def test_a_value_in_the_place_of_an_errors_name_is_not_shown(text: str) -> None:
    seen = Masked((), {}, ("hunter2hunter2", "z" * 10_000_000))

    assert seen.strike(text) == MASK
    assert HIDDEN.strike("ValueError: no") == "ValueError"
