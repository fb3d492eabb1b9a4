"""Signals, hooks and events are the same for a coroutine and a function: the same, in the same order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.semantics.conftest import Way
from tests.support import eventually

Events = Callable[[str, str], list[dict[str, Any]]]


def seen_until(way: Way, task_id: str, last: str, times: int = 1) -> list[Any]:
    """Wait until ``last`` was noted that many times; return all notes."""
    return eventually(lambda: [n[0] for n in way.seen(task_id)].count(last) >= times and way.seen(task_id))


def test_a_success_is_heard_in_order(way: Way) -> None:
    result = way.s("observed", "success", word="w").apply_async()

    assert seen_until(way, result.id, "task_postrun") == [
        ["task_received"],
        ["task_prerun", True, ["success"], {"word": "w"}, True],
        ["before_start", ["success"], {"word": "w"}],
        ["body"],
        ["on_success", "w", ["success"], {"word": "w"}],
        ["task_success", "w"],
        ["after_return", "SUCCESS", "'w'", ["success"], {"word": "w"}, None],
        ["task_postrun", ["success"], {"word": "w"}, "str", "SUCCESS"],
    ]


def test_a_failure_is_heard_in_order(way: Way) -> None:
    result = way.s("observed", "failure", word="w").apply_async()

    assert seen_until(way, result.id, "task_postrun") == [
        ["task_received"],
        ["task_prerun", True, ["failure"], {"word": "w"}, True],
        ["before_start", ["failure"], {"word": "w"}],
        ["body"],
        ["on_failure", "ValueError('w')", ["failure"], {"word": "w"}, "ExceptionInfo"],
        ["task_failure", "ValueError('w')", ["failure"], {"word": "w"}],
        ["after_return", "FAILURE", "ValueError('w')", ["failure"], {"word": "w"}, None],
        ["task_postrun", ["failure"], {"word": "w"}, "ValueError", "FAILURE"],
    ]


def test_a_retry_is_heard_in_order(way: Way) -> None:
    result = way.s("observed", "retry", word="w").apply_async()
    first = [
        ["task_received"],
        ["task_prerun", True, ["retry"], {"word": "w"}, True],
        ["before_start", ["retry"], {"word": "w"}],
        ["body"],
        ["on_retry", "ValueError('w')", ["retry"], {"word": "w"}, "ExceptionInfo"],
        ["task_retry", "ValueError('w')"],
        ["task_postrun", ["retry"], {"word": "w"}, "Retry", "RETRY"],
    ]

    seen = seen_until(way, result.id, "task_postrun", times=2)
    assert seen[:7] == first
    assert [note[0] for note in seen[7:]] == [
        "task_received", "task_prerun", "before_start", "body", "on_success", "task_success", "after_return",
        "task_postrun",
    ]  # fmt: skip


def test_a_termination_is_heard(way: Way) -> None:
    result = way.s("observed", "nap").apply_async()
    seen_until(way, result.id, "body")
    eventually(lambda: result.state == "STARTED")
    result.revoke(terminate=True)

    seen = seen_until(way, result.id, "task_revoked")
    assert ["task_revoked", True, False] in seen
    assert not {"on_success", "on_failure", "task_failure"} & {note[0] for note in seen}


def test_a_hard_limit_is_heard_as_a_failure(way: Way) -> None:
    result = way.s("observed", "nap").apply_async(time_limit=0.5)

    seen = seen_until(way, result.id, "task_failure")
    assert [note for note in seen if note[0] in ("on_failure", "task_failure", "after_return")] == [
        ["on_failure", "TimeLimitExceeded(0.5)", ["nap"], {}, "ExceptionInfo"],
        ["after_return", "FAILURE", "TimeLimitExceeded(0.5)", ["nap"], {}, None],
        ["task_failure", "TimeLimitExceeded(0.5)", ["nap"], {}],
    ]


# --- events -------------------------------------------------------------------------------------------


def test_events_tell_of_a_success(way: Way, events: Events) -> None:
    result = way.s("echo", 1, b=2).apply_async()
    told = {event["type"]: event for event in events(result.id, "task-succeeded")}

    assert list(told) == ["task-received", "task-started", "task-succeeded"]
    received, succeeded = told["task-received"], told["task-succeeded"]
    assert (received["name"], received["args"], received["kwargs"], received["retries"]) == (
        f"echo.{way.form}", "(1,)", "{'b': 2}", 0,
    )  # fmt: skip
    assert succeeded["result"] == "[[1], {'b': 2}]"
    assert 0 <= succeeded["runtime"] < 10
    assert succeeded["hostname"].startswith("prefork@" if way.has_children else "own@")


def test_events_tell_of_a_failure(way: Way, events: Events) -> None:
    result = way.send("failing", "no such order")
    told = events(result.id, "task-failed")

    assert [event["type"] for event in told] == ["task-received", "task-started", "task-failed"]
    assert told[-1]["exception"] == "ValueError('no such order')"
    assert "in failing" in told[-1]["traceback"]


def test_events_tell_of_a_retry(way: Way, events: Events) -> None:
    result = way.send("flaky", 1)
    told = events(result.id, "task-succeeded")

    assert [event["type"] for event in told] == [
        "task-received", "task-started", "task-retried", "task-received", "task-started", "task-succeeded",
    ]  # fmt: skip
    retried = next(event for event in told if event["type"] == "task-retried")
    assert retried["exception"] == "ValueError('failure 1')"


def test_events_tell_of_a_termination(way: Way, events: Events) -> None:
    result = way.send("nap")
    eventually(lambda: result.state == "STARTED")
    result.revoke(terminate=True)
    told = events(result.id, "task-revoked")

    assert [event["type"] for event in told] == ["task-received", "task-started", "task-revoked"]
    assert (told[-1]["terminated"], told[-1]["expired"]) == (True, False)


@pytest.mark.parametrize(("requeue", "last"), [(True, "task-succeeded"), (False, "task-rejected")])
def test_events_tell_of_a_rejection(way: Way, events: Events, requeue: bool, last: str) -> None:
    result = way.send("rejecting", requeue)
    types = [event["type"] for event in events(result.id, last)]

    assert "task-rejected" in types
    assert ("task-failed" in types) is not requeue
