"""Every way a task can end is one row in SQL: real workers, a real writer, SQLite."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.integration.history.conftest import Deployment
from tests.support import Process, RedisServer, eventually, start_worker


@pytest.fixture(scope="module")
def running(session_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A node and a writer, for all of these."""
    directory = tmp_path_factory.mktemp("ends")
    nodes: list[Process] = []

    def start(*options: str, **more: str) -> Process:
        nodes.append(start_worker(directory, session_server.url, *options, **more))
        return nodes[-1]

    made = Deployment(directory, session_server, start)
    made.node()
    made.writer()
    yield made
    made.close()
    for node in nodes:
        node.close()
    session_server.client.flushall()


def test_a_success_is_told_with_all_that_is_known_of_it(running: Deployment) -> None:
    before = time.time()
    task_id = running.submit("returns.apply_async((['a', 1],), queue='high', priority=7)")

    end = running.end_of(task_id)

    assert (end.type, end.queue, end.priority, end.state) == ("ends.returns", "high", 7, "succeeded")
    assert end.node.startswith("w1@")
    assert end.args == "(['a', 1],)"
    assert end.kwargs == "{}"
    assert end.result == "['a', 1]"
    assert end.error == end.traceback == ""
    assert end.attempts == 1
    assert end.root_id == task_id
    assert before < end.started_at <= end.finished_at < time.time()
    assert 0 <= end.run_seconds < 60
    eventually(lambda: running.waiting() == 0)


@pytest.mark.parametrize("name", ["returns_async", "returns_in_child", "at_most_once"])
def test_so_it_is_wherever_a_task_runs(running: Deployment, name: str) -> None:
    end = running.end_of(running.submit(f"{name}.delay(42)"))

    assert (end.state, end.result, end.args, end.attempts) == ("succeeded", "42", "(42,)", 1)
    assert end.started_at is not None


def test_a_failure_for_good_is_told_with_its_traceback(running: Deployment) -> None:
    kept, unkept = (
        running.end_of(one) for one in running.submit("[fails.delay('broken \\0 \\ud800'), fails_unkept.delay()]")
    )

    assert (kept.state, kept.result) == ("failed", "")
    assert kept.error.startswith("ValueError: broken \ufffd ")
    assert "raise ValueError(text)" in kept.traceback
    assert (unkept.state, unkept.error) == ("failed", "ValueError: not kept")


def test_a_task_that_is_retried_ends_once(running: Deployment) -> None:
    good, bad = running.submit("[retries.delay(2), retries.delay(9)]")

    assert (running.end_of(good).state, running.end_of(good).attempts) == ("succeeded", 3)
    assert (running.end_of(bad).state, running.end_of(bad).attempts) == ("failed", 3)
    assert running.end_of(bad).error == "ValueError: not yet"


def test_what_is_acknowledged_before_it_runs_is_told_at_its_end(running: Deployment) -> None:
    end = running.end_of(running.submit("at_most_once.delay(1, fails=True)"))

    assert (end.state, end.error) == ("failed", "ValueError: at most once")


def test_what_was_ignored_rejected_or_revoked_is_told(running: Deployment) -> None:
    ignored, rejected, late = running.submit(
        "[ignored.delay(), rejected.delay(), returns.apply_async((1,), expires=-1)]"
    )

    assert (running.end_of(ignored).state, running.end_of(ignored).error) == ("ignored", "Ignore: of no interest")
    assert running.end_of(rejected).state == "dead"
    assert "not mine" in running.end_of(rejected).error
    end = running.end_of(late)
    assert (end.state, end.error, end.started_at, end.attempts) == ("cancelled", "expired", None, 0)


def test_a_task_that_was_replaced_ends_when_what_replaced_it_does(running: Deployment) -> None:
    simple, by_chord = running.submit("[replaced.delay('new'), replaced_by_chord.delay()]")

    assert (running.end_of(simple).type, running.end_of(simple).result) == ("ends.returns", "'new'")
    assert (running.end_of(by_chord).type, running.end_of(by_chord).result) == ("ends.returns", "[1, 2]")


def test_a_hard_time_limit_is_a_failure(running: Deployment) -> None:
    end = running.end_of(running.submit("overruns.delay()"))

    assert (end.state, end.error) == ("failed", "TimeLimitExceeded: TimeLimitExceeded(1,)")
    assert end.run_seconds > 0.9


def test_a_message_of_a_known_task_that_cannot_be_read_dies(running: Deployment) -> None:
    task_id = running.python(
        "sent = forged('ends.returns', (1,), headers={'timelimit': 'soon'})\nprint(json.dumps(sent.id))"
    )[0]

    end = running.end_of(task_id)

    assert end.state in ("dead", "failed")
    assert end.error


def test_a_failed_task_that_is_replayed_has_two_ends(running: Deployment) -> None:
    task_id = running.submit("fails.delay('again')")
    running.end_of(task_id)

    running.python(
        "with app.engine() as engine:\n"
        f"    letter = next(one for one in engine.dead_letters.find() if one.id == {task_id!r})\n"
        "    assert engine.dead_letters.replay(letter.queue, letter.number)"
    )

    last, first = running.ends_of(task_id, 2)
    assert last.finished_us > first.finished_us


def test_a_task_of_a_workflow_names_what_it_belongs_to(running: Deployment) -> None:
    first, last = running.python(
        "from celery import chain\nsent = chain(returns.s(1), returns.s())()\nprint(json.dumps(sent.parent.id))\n"
        "print(json.dumps(sent.id))"
    )

    end = running.end_of(last)

    assert (end.root_id, end.parent_id) == (first, first)
