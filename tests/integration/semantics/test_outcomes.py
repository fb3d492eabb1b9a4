"""A task ends the same as coroutine and as function: retried, over its limits, revoked, ignored, rejected, failed."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import psutil
import pytest
from celery.exceptions import (
    MaxRetriesExceededError,
    Reject,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
)

from taskapp.errors import OutOfMemory, TaskExited
from tests.integration.semantics.conftest import Way
from tests.support import eventually, leased_count

# --- retries ----------------------------------------------------------------------------------------


def test_a_task_that_retries_itself_runs_again_after_the_countdown(way: Way) -> None:
    result = way.send("flaky", 2, 0.4)

    assert result.get(timeout=20) == 2
    began = [at for (at,) in way.seen(result.id)]
    waits = [after - before for before, after in pairwise(began)]
    assert len(waits) == 2
    assert all(0.4 <= wait < 2.0 for wait in waits)


def test_between_two_runs_a_task_is_in_retry(way: Way) -> None:
    result = way.send("flaky", 1, 1.0)

    eventually(lambda: result.state == "RETRY")
    assert repr(result.info) == "ValueError('failure 1')"
    assert "ValueError" in result.traceback or "Retry" in result.traceback
    assert result.get(timeout=20) == 1


def test_a_retry_may_change_the_arguments(way: Way) -> None:
    assert way.run("changing", 1) == 2


@pytest.mark.parametrize(("with_error", "error"), [(True, ValueError), (False, MaxRetriesExceededError)])
def test_the_last_retry_fails_with_the_error_it_was_given(way: Way, with_error: bool, error: type[Exception]) -> None:
    result = way.send("hopeless", with_error)

    assert type(way.failure(result)).__name__ == error.__name__
    assert way.seen(result.id) == [[0], [1]]
    assert result.state == "FAILURE"


def test_errors_of_autoretry_for_are_retried_and_no_others(way: Way) -> None:
    assert way.run("automatic", "retried", 2) == 2
    for error, kept in (("never", "ConnectionResetError"), ("other", "KeyError")):
        result = way.send("automatic", error, 2)
        assert type(way.failure(result)).__name__ == kept
        assert way.seen(result.id) == [[0]]


def test_automatic_retries_end_at_max_retries(way: Way) -> None:
    result = way.send("automatic", "retried", 9)

    assert repr(way.failure(result)) == "ConnectionError('failure 3')"
    assert way.seen(result.id) == [[0], [1], [2]]


def test_a_bound_the_body_sets_holds_for_what_is_retried_automatically(way: Way) -> None:
    result = way.send("bounded")

    assert repr(way.failure(result)) == "ConnectionError('bounded')"
    assert way.seen(result.id) == [[0], [1]]


# --- time limits ------------------------------------------------------------------------------------


def test_the_soft_limit_is_raised_where_the_task_waits_and_may_be_handled(way: Way) -> None:
    result = way.send("nap", soft_time_limit=0.5)

    assert result.get(timeout=20) == "cleaned up"
    assert way.seen(result.id) == [["began"], ["over the soft limit"], ["left"]]


def test_a_soft_limit_nobody_handles_fails_the_task(way: Way) -> None:
    result = way.send("limited")

    error = way.failure(result)
    assert type(error) is SoftTimeLimitExceeded
    assert "pause" in result.traceback


def test_a_limit_of_the_call_goes_before_that_of_the_type(way: Way) -> None:
    result = way.send("limited", soft_time_limit=30, time_limit=0.5)

    assert type(way.failure(result)) is TimeLimitExceeded


def test_the_hard_limit_ends_the_run(way: Way) -> None:
    result = way.send("nap", time_limit=0.5)

    error = way.failure(result)
    assert (type(error), error.args) == (TimeLimitExceeded, (0.5,))
    assert way.run("echo", "next") == [["next"], {}]
    if not way.has_children:  # a child is killed
        way.sees(result.id, ["left"])


def test_the_hard_limit_follows_a_soft_one_that_was_not_heeded(way: Way) -> None:
    result = way.send("deaf", soft_time_limit=0.3, time_limit=0.8)

    assert type(way.failure(result)) is TimeLimitExceeded
    assert ["heard"] in way.seen(result.id)


@pytest.mark.parametrize("where", ["group", "gather"])
def test_no_child_of_a_coroutine_over_its_soft_limit_is_left_behind(coroutines: Way, where: str) -> None:
    result = coroutines.send("nursery", where, soft_time_limit=0.5)

    assert result.get(timeout=20) == "cancelling 0"
    seen = coroutines.seen(result.id)
    assert sorted(seen[:2]) == [["one", "began"], ["two", "began"]]
    assert sorted(seen[2:4]) == [["one", "left"], ["two", "left"]]
    assert seen[4:] == [["body", "SoftTimeLimitReached(0.5)"]]


def test_a_soft_limit_in_the_body_of_a_task_group_is_still_a_soft_limit(coroutines: Way) -> None:
    result = coroutines.send("busy_nursery", soft_time_limit=0.5)

    assert type(coroutines.failure(result)) is SoftTimeLimitExceeded
    assert coroutines.seen(result.id) == [["one", "began"], ["one", "left"]]


# --- ended from outside --------------------------------------------------------------------------------


def test_a_task_revoked_before_it_comes_does_not_run(way: Way) -> None:
    task_id = f"revoked-{way.form}-{way.queue}"
    way.app.control.revoke(task_id)
    eventually(
        lambda: all(
            task_id in revoked for revoked in (way.app.control.inspect(timeout=1).revoked() or {"": ""}).values()
        )
    )
    result = way.send("nap", 0, task_id=task_id)

    assert isinstance(way.failure(result), TaskRevokedError)
    assert result.state == "REVOKED"
    assert way.seen(task_id) == []


def test_a_running_task_that_is_revoked_and_terminated_ends(way: Way) -> None:
    result = way.send("nap")
    eventually(lambda: result.state == "STARTED")  # until then other workers take it for one that waits
    result.revoke(terminate=True)

    error = way.failure(result)
    assert (type(error), str(error)) == (TaskRevokedError, "terminated")
    assert result.state == "REVOKED"
    if not way.has_children:  # a child is killed
        way.sees(result.id, ["left"])
    assert way.run("echo", "next") == [["next"], {}]
    eventually(lambda: leased_count(way.server) == 0)


def test_a_task_that_has_expired_does_not_run(way: Way) -> None:
    result = way.send("nap", 0, expires=datetime.now(UTC) - timedelta(seconds=1))

    error = way.failure(result)
    assert (type(error), str(error)) == (TaskRevokedError, "expired")
    assert way.seen(result.id) == []


def test_a_rate_limit_spreads_a_type_over_time(way: Way) -> None:
    sent_at = time.time()
    results = [way.send("limited_rate") for _ in range(5)]

    ran = sorted(result.get(timeout=20) for result in results)
    assert ran[-1] - sent_at >= 4 / 4 - 0.05


# --- Ignore, Reject -----------------------------------------------------------------------------------


def test_an_ignored_run_leaves_no_result_and_no_message(way: Way) -> None:
    result = way.send("ignoring")

    way.sees(result.id, ["ran"])
    eventually(lambda: leased_count(way.server) == 0)
    assert result.state in ("PENDING", "STARTED")  # only what runs a while is stored as started
    assert way.run("echo", 1) == [[1], {}]
    assert way.seen(result.id) == [["ran"]]


def test_a_rejected_run_comes_again_when_it_asks_for_it(way: Way) -> None:
    result = way.send("rejecting", True)

    assert result.get(timeout=20) == "taken the second time"
    assert [redelivered for (redelivered,) in way.seen(result.id)] == [False, True]


def test_a_rejected_run_that_asks_for_nothing_has_failed(way: Way) -> None:
    result = way.send("rejecting", False)

    assert type(way.failure(result)).__name__ == Reject.__name__
    assert result.state == "FAILURE"
    assert way.seen(result.id) == [[False]]
    with way.app.engine() as engine:
        assert result.id in {letter.id for letter in engine.dead_letters.find()}


# --- errors -------------------------------------------------------------------------------------------


def test_an_error_is_stored_with_its_traceback(way: Way) -> None:
    result = way.send("failing", "no such order")

    error = way.failure(result)
    assert (type(error), error.args) == (ValueError, ("no such order",))
    assert result.state == "FAILURE"
    assert "in failing" in result.traceback
    assert result.traceback.splitlines()[-1] == "ValueError: no such order"


def test_an_error_that_cannot_be_stored_is_told_by_its_name(way: Way) -> None:
    result = way.send("strange")

    error = way.failure(result)
    assert type(error).__name__ == "UnpickleableExceptionWrapper"
    assert "Unpicklable" in str(error)
    assert "strange" in str(error)
    assert "Unpicklable" in result.traceback


def test_a_result_that_cannot_be_stored_is_a_failure(way: Way) -> None:
    result = way.send("unencodable")

    error = way.failure(result)
    assert type(error).__name__ == "EncodeError"
    assert "object" in str(error)


def test_a_task_out_of_memory_fails_and_the_worker_goes_on(way: Way) -> None:
    result = way.send("hungry")

    assert type(way.failure(result)).__name__ in (OutOfMemory.__name__, "MemoryError")
    assert way.run("echo", "next") == [["next"], {}]
    assert way.worker.returncode is None


def test_a_task_that_calls_exit_ends_its_own_process_and_no_other(way: Way) -> None:
    children = {child.pid for child in psutil.Process(way.worker.pid).children()}
    result = way.send("leaving")

    error = way.failure(result)
    if way.has_children:
        assert type(error).__name__ in ("WorkerLostError", "CrashedTooOften")
        assert children != {child.pid for child in psutil.Process(way.worker.pid).children()}
    else:
        assert type(error) is TaskExited
        assert "SystemExit(3)" in str(error)
    assert way.run("echo", "next") == [["next"], {}]
    assert way.worker.returncode is None


def test_a_coroutine_that_cancels_itself_has_failed(coroutines: Way) -> None:
    result = coroutines.send("cancelled")

    assert type(coroutines.failure(result)).__name__ == "CoroutineCancelled"


# --- states and acknowledgement -------------------------------------------------------------------------


def test_a_running_task_is_started_and_says_where(way: Way) -> None:
    key = f"started-{way.form}-{way.queue}"
    result = way.send("hold", key)

    eventually(lambda: result.state == "STARTED")
    way.sees(result.id, ["began"])
    info = result.info
    assert info["hostname"].startswith("prefork@" if way.has_children else "own@")
    assert (info["pid"] == way.worker.pid) is not way.has_children
    way.server.client.set(key, 1)
    assert result.get(timeout=20) == "held"


@pytest.mark.parametrize(("body", "held"), [("hold", 1), ("hold_early", 0)])
def test_a_message_is_acknowledged_when_the_type_says(way: Way, body: str, held: int) -> None:
    key = f"{body}-{way.form}-{way.queue}"
    result = way.send(body, key)
    way.sees(result.id, ["began"])
    eventually(lambda: leased_count(way.server) == held)
    way.server.client.set(key, 1)

    assert result.get(timeout=20) == "held"
    eventually(lambda: leased_count(way.server) == 0)


def test_an_idle_worker_takes_a_task_at_once(way: Way) -> None:
    """What was sent while slots were free begins at once, whatever ended before."""
    way.run("echo")
    took = []
    for _ in range(3):
        began = time.monotonic()
        way.run("echo")
        took.append(time.monotonic() - began)
    assert min(took) < 0.5
