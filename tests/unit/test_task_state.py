"""From a message, a result and notes to one state: what no real node does on demand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from taskapp.engine.dead_letters import DeadLetter
from taskapp.engine.envelope import Envelope
from taskapp.engine.search import Found, Place
from taskapp.engine.task_notes import Noted, RetryNote
from taskapp.monitor.task_state.outcome import Outcome, _outcome
from taskapp.monitor.task_state.resolve import Evidence, judge
from taskapp.monitor.task_state.states import State, TaskState
from taskapp.sanitize import sanitize
from taskapp.worker.run.task_log import LINE_BYTES_MOST, shortened

NOWHERE, NO_RESULT, NOTHING = None, Outcome(), Noted()
LEASED = Found(Place.LEASED, "q", 0, Envelope("a", "t", 0, 2, 1, b"", 1), epoch="0123456789", node="n@h")


def letter(reason: str) -> Found:
    one = DeadLetter("q", 7, reason, "a", "t", 0, 3, 3, 50.0, "n@h", "it died", b"")
    return Found(Place.DEAD, "q", 0, Envelope("a", "t", 0, 3, 3, b"", 1), 50.0, letter=one)


def of(place: Place) -> Found:
    return Found(place, "q", 5, Envelope("a", "t", 5, 0, 0, b"", 1), 100.0)


def judged(found: Found | None, outcome: Outcome = NO_RESULT, noted: Noted = NOTHING, **rest: Any) -> TaskState:
    return judge(Evidence("a", found, rest.pop("headers", {}), outcome, noted, **rest))


@pytest.mark.parametrize(
    ("found", "celery_state", "retries", "noted", "state"),
    [
        (NOWHERE, "PENDING", 0, NOTHING, State.UNKNOWN),
        (NOWHERE, "RETRY", 0, NOTHING, State.UNKNOWN),
        (NOWHERE, "STARTED", 0, NOTHING, State.RUNNING),
        (NOWHERE, "SUCCESS", 0, NOTHING, State.SUCCEEDED),
        (NOWHERE, "FAILURE", 0, NOTHING, State.FAILED),
        (NOWHERE, "REVOKED", 0, NOTHING, State.CANCELLED),
        (NOWHERE, "MY OWN", 0, NOTHING, State.UNKNOWN),
        (NOWHERE, "PENDING", 0, Noted(cancelled_at=1.0), State.CANCELLED),
        (NOWHERE, "PENDING", 0, Noted(revoked_at=1.0), State.UNKNOWN),
        (NOWHERE, "SUCCESS", 0, Noted(revoked_at=1.0), State.SUCCEEDED),
        (of(Place.READY), "PENDING", 0, NOTHING, State.QUEUED),
        (of(Place.READY), "FAILURE", 0, NOTHING, State.QUEUED),
        (of(Place.READY), "RETRY", 1, NOTHING, State.QUEUED),
        (of(Place.READY), "PENDING", 0, Noted(revoked_at=1.0), State.CANCELLED),
        (of(Place.DELAYED), "PENDING", 0, NOTHING, State.DELAYED),
        (of(Place.DELAYED), "RETRY", 1, NOTHING, State.RETRYING),
        (of(Place.DELAYED), "RETRY", "odd", NOTHING, State.DELAYED),
        (of(Place.PARKED), "PENDING", 0, NOTHING, State.PARKED),
        (LEASED, "PENDING", 0, NOTHING, State.RUNNING),
        (LEASED, "FAILURE", 0, NOTHING, State.RUNNING),
        (LEASED, "PENDING", 0, Noted(revoked_at=1.0), State.RUNNING),
        (LEASED, "REVOKED", 0, NOTHING, State.CANCELLED),
        (LEASED, "SUCCESS", 0, NOTHING, State.SUCCEEDED),
        (letter("crashed"), "FAILURE", 0, NOTHING, State.DEAD),
        (letter("unreadable"), "PENDING", 0, Noted(revoked_at=1.0), State.DEAD),
    ],
)
def test_one_state_follows_from_message_result_and_notes(
    found: Found | None, celery_state: str, retries: Any, noted: Noted, state: State
) -> None:
    seen = judged(found, Outcome(state=celery_state), noted, headers={"retries": retries})

    assert (seen.state, seen.celery_state) == (state, celery_state)


@pytest.mark.parametrize(
    ("headers", "outcome", "noted", "submitted"),
    [
        ({"taskapp_sent_at": 5.0}, NO_RESULT, NOTHING, 5.0),
        ({"taskapp_sent_at": 5.0, "retries": 0}, Outcome(submitted_at=4.0), NOTHING, 5.0),
        ({}, Outcome(state="SUCCESS", run=2, submitted_at=4.0), NOTHING, 4.0),
        ({"taskapp_sent_at": 5.0, "retries": 1}, NO_RESULT, NOTHING, None),
        ({"taskapp_sent_at": 5.0, "replaced_task_nesting": 1}, NO_RESULT, NOTHING, None),
        ({"taskapp_sent_at": 5.0}, NO_RESULT, Noted(retries=(RetryNote(4.0, 0, "no", "n@h"),)), None),
        ({}, Outcome(state="SUCCESS", retries=1, submitted_at=4.0), NOTHING, None),
        ({}, Outcome(state="SUCCESS", run=1_001, submitted_at=4.0), NOTHING, None),
    ],
)
def test_submitted_is_when_the_caller_submitted_it_or_is_left_out(
    headers: dict[str, Any], outcome: Outcome, noted: Noted, submitted: float | None
) -> None:
    seen = judged(of(Place.READY) if headers else NOWHERE, outcome, noted, headers=headers)

    moments = [moment.at for moment in seen.timeline if moment.what == "submitted"]
    assert moments == ([] if submitted is None else [submitted])


def test_a_run_is_known_to_have_begun_only_by_its_own_sign_of_life() -> None:
    earlier = Outcome(state="STARTED", run=1, node="old@h", started_at=10.0)
    its_own = Outcome(state="STARTED", run=1_002, node="n@h", started_at=20.0)

    claimed = judged(LEASED, earlier, headers={"retries": 1})
    running = judged(LEASED, its_own, headers={"retries": 1})

    assert ([moment.what for moment in claimed.timeline], claimed.node) == ([], "n@h")
    assert "claimed" in claimed.remark
    assert [moment.what for moment in running.timeline] == ["started"]
    assert running.remark == ""
    assert running.attempts == claimed.attempts == 4


def test_a_node_without_a_name_is_named_by_its_epoch() -> None:
    assert judged(LEASED._replace(node="")).node == "epoch 01234567"


@pytest.mark.parametrize(
    ("reason", "attempts"), [("crashed", 3), ("failed", 4), ("unknown task", 3), ("unreadable", 3)]
)
def test_a_dead_letters_attempts_count_its_last_run_once(reason: str, attempts: int) -> None:
    assert judged(letter(reason)).attempts == attempts


def test_a_broker_that_does_not_tell_is_said_and_its_results_are_used() -> None:
    assert "does not show" in judged(NOWHERE, sees_messages=False).remark
    assert judged(NOWHERE, Outcome(state="RETRY"), sees_messages=False).state is State.RETRYING
    assert judged(NOWHERE, Outcome(state="STARTED"), sees_messages=False).remark == ""


def test_a_retry_that_left_no_result_has_its_error_from_the_notes() -> None:
    noted = Noted(retries=(RetryNote(1.0, 1, "E: first", "n"), RetryNote(2.0, 2, "E: second", "n")))

    assert judged(of(Place.DELAYED), noted=noted, headers={"retries": 2}).error == "E: second"


@pytest.mark.parametrize("odd", [{"eta": "soon"}, {"taskapp_sent_at": "x"}, {"eta": 3}, {"task": None, "argsrepr": 5}])
def test_headers_that_others_wrote_are_no_obstacle(odd: dict[str, Any]) -> None:
    assert judged(of(Place.READY), headers=odd).state is State.QUEUED


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ({"exc_type": "ValueError", "exc_message": ["a", 1], "exc_module": "builtins"}, "ValueError: a, 1"),
        ({"exc_type": "KeyError", "exc_message": []}, "KeyError"),
        ({"exc_type": "Odd", "exc_message": "text"}, "Odd: text"),
        (ValueError("of SQL"), "ValueError: of SQL"),
        (None, ""),
        ("text", "text"),
    ],
)
def test_errors_are_read_as_backends_keep_them(result: Any, error: str) -> None:
    assert _outcome({"status": "FAILURE", "result": result}).error == error


@pytest.mark.parametrize(
    "moment",
    ["2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), 1767323045],
)
def test_times_are_read_as_backends_keep_them(moment: Any) -> None:
    assert _outcome({"status": "SUCCESS", "date_done": moment}).finished_at == 1767323045


@pytest.mark.parametrize("meta", [None, [], {}, {"status": None}, {"status": "SUCCESS", "date_done": "never"}])
def test_a_result_that_is_none_is_no_obstacle(meta: Any) -> None:
    assert _outcome(meta).finished_at is None


def test_a_state_goes_into_json_whole() -> None:
    seen = judged(letter("failed"), Outcome(state="FAILURE", error="E: x", finished_at=49.0)).as_json()

    assert msgspec.json.decode(msgspec.json.encode(seen))["timeline"] == [
        {"at": 49.0, "what": "failed", "detail": "E: x"}, {"at": 50.0, "what": "buried", "detail": "failed"},
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "x" * 2_048, "x" * 2_049, "ü" * 5_000, "a" + "😀" * 3_000, "\udcff" * 5_000])
def test_a_long_line_is_shortened_to_its_ends(text: str) -> None:
    short = shortened(text)

    assert len(short.encode()) <= LINE_BYTES_MOST
    assert (short == text) == (len(text.encode(errors="replace")) <= LINE_BYTES_MOST and text.isascii()) or not text
    assert short.startswith(text[:100].encode(errors="replace").decode())


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain ü 漢", "plain ü 漢"), ("\x1b[2J", "\\x1b[2J"), ("a\r\n", "a\\r\\n"), ("\x9b\u202e", "\\x9b\\u202e")],
)
def test_what_does_not_print_is_written_out(text: str, shown: str) -> None:
    assert sanitize(text) == shown
    assert sanitize("a\nb", keep="\n") == "a\nb"
