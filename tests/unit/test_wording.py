"""Errors in words, whatever their own code raises."""

from __future__ import annotations

import logging
from traceback import format_exception

import pytest
from celery.exceptions import Reject, Retry

from taskapp.errors import BrokerUnavailable, OutOfMemory, wording
from taskapp.errors.wording import TEXT_MOST, BrokenError, HeavyError, in_words, name_of, shown, sound
from taskapp.execution.failures import as_error, as_failure
from tests.integration.exiting import BROKEN

READABLE = [ValueError("x"), SystemExit(3), KeyboardInterrupt(), Reject("no"), Retry("again"), KeyError("k")]


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("change", [sound, as_error, as_failure])
def test_what_is_left_of_a_broken_error_can_be_read_by_all(name: str, change, caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise BROKEN[name]()
    except BaseException as error:  # noqa: BLE001 - whatever it is
        raised = error
    assert in_words(raised)
    assert shown(raised)

    kept = change(raised)

    assert "".join(format_exception(type(kept), kept, kept.__traceback__))
    assert isinstance(kept, kept.__class__)
    told = in_words(kept) + "".join(format_exception(kept))
    assert name_of(raised).rpartition(".")[2] in told or isinstance(kept, OutOfMemory)
    logging.getLogger(__name__).error("%s", in_words(kept), exc_info=kept)
    assert caplog.records


@pytest.mark.parametrize("error", READABLE, ids=repr)
def test_an_error_that_can_be_read_stays_itself(error: BaseException) -> None:
    error.__cause__ = cause = ValueError("cause")

    assert sound(error) is error
    assert error.__cause__ is cause


def test_an_error_is_cut_off_from_one_that_cannot_be_read() -> None:
    error = BROKEN["from a broken one"]()

    assert sound(error) is error
    assert error.__cause__ is None


def test_in_the_place_of_a_broken_error_stands_its_name_and_where_it_came_from() -> None:
    try:
        raise BROKEN["NoTraceback"]()
    except Exception as error:  # noqa: BLE001 - any
        kept = sound(error)

    assert isinstance(kept, BrokenError)
    assert str(kept) == (
        "tests.integration.exiting.NoTraceback was raised, and reading that error raised ZeroDivisionError; "
        "fix its class"
    )
    assert "".join(format_exception(kept)).count(__file__) == 1


@pytest.mark.parametrize(("task_id", "named"), [("x", "'shop.pay' (id x) within"), ("", "'shop.pay' within")])
def test_a_broker_that_is_away_before_there_is_an_id_is_told_without_one(task_id: str, named: str) -> None:
    assert f"the broker did not accept {named} 4 s" in str(BrokerUnavailable("shop.pay", task_id, 4, "refused"))


class Heavy(Exception):
    """Counts how often its text is made."""

    reads = 0
    seconds = 0.0

    def __str__(self) -> str:
        Heavy.reads += 1
        clock.now += self.seconds
        return self.args[0]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


clock = Clock()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> type[Heavy]:
    monkeypatch.setattr(wording, "monotonic", clock)
    monkeypatch.setattr(Heavy, "reads", 0)
    return Heavy


@pytest.mark.parametrize(
    ("text", "seconds", "told"),
    [
        ("x" * (TEXT_MOST + 1), 0.0, "whose text takes 16,777,217 characters, more than 16,777,216"),
        ("y" * 2_000, 5.0, f"whose text took 5.0 s to make: '{'y' * 1_000}'"),
    ],
    ids=["long", "slow"],
)
def test_a_text_that_is_much_is_made_once_and_its_stand_in_says_so(
    reads: type[Heavy], monkeypatch: pytest.MonkeyPatch, text: str, seconds: float, told: str
) -> None:
    monkeypatch.setattr(Heavy, "seconds", seconds)

    kept = sound(as_failure(as_error(Heavy(text))))

    assert reads.reads == 1
    assert type(kept) is HeavyError
    assert str(kept) == f"tests.unit.test_wording.Heavy was raised, {told}; fix its class"


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
@pytest.mark.parametrize(("length", "seconds"), [(TEXT_MOST + 1, 0.0), (10, 5.0)], ids=["long", "slow"])
def test_a_cause_whose_text_is_much_is_cut_off(
    reads: type[Heavy], monkeypatch: pytest.MonkeyPatch, link: str, length: int, seconds: float
) -> None:
    monkeypatch.setattr(Heavy, "seconds", seconds)
    error = ValueError("x")
    setattr(error, link, Heavy("x" * length))

    assert sound(error) is error
    assert getattr(error, link) is None
    assert reads.reads == 1


def test_a_machine_that_stands_still_changes_no_error_that_python_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wording, "monotonic", iter(range(100)).__next__)
    error = ValueError("x", 3)

    assert sound(error) is error
