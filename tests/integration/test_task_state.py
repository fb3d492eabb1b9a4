"""One true state for the id of a task: real tasks, real nodes, and what people read of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery, chain

from taskapp.monitor.task_state import State, TaskState, task_state
from tests.integration import shop, watched
from tests.support import Process, RedisServer, clean_environment, eventually, run_python

pytestmark = pytest.mark.usefixtures("app")
WATCHED = "tests.integration.watched"
StartWorker = Callable[..., Process]


def taskapp(server: RedisServer, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the ``taskapp`` command as a user would."""
    environment = clean_environment(**{"TASKAPP_BROKER_URL": server.url, **variables})
    return run_python("-m", "taskapp", *arguments, env=environment)


def shown(server: RedisServer, task_id: str) -> dict:
    return json.loads(taskapp(server, "task", "show", task_id, "--json").stdout)


def becomes(task_id: str, state: State, within_seconds: float = 20) -> TaskState:
    """Wait until a task is in ``state``; return all that is known of it then."""
    eventually(lambda: task_state(task_id).state is state or None, within_seconds)
    return task_state(task_id)


def happened(state: TaskState) -> list[str]:
    return [moment.what for moment in state.timeline]


# --- each state -----------------------------------------------------------------------------------


def test_a_waiting_task_is_queued_with_its_place_and_arguments(app: Celery) -> None:
    result = shop.greet.apply_async(("you",), {}, queue="low", priority=7)

    state = task_state(result.id)

    assert (state.state, state.queue, state.priority) == (State.QUEUED, "low", 7)
    assert (state.task, state.args, state.attempts) == ("tests.integration.shop.greet", "('you',)", 0)
    assert state.celery_state == result.state == "PENDING"
    assert happened(state) == ["submitted"]
    assert abs(state.timeline[0].at - time.time()) < 30


def test_a_delayed_task_says_when_it_is_due(app: Celery) -> None:
    result = shop.greet.apply_async(("you",), countdown=3_600)

    state = task_state(result.id)

    assert state.state is State.DELAYED
    assert abs(state.next_at - time.time() - 3_600) < 30
    assert happened(state) == ["submitted", "due"]


def test_a_task_of_a_type_no_node_has_is_parked(app: Celery, worker: StartWorker) -> None:
    worker()
    result = app.send_task("shop.nobody_has_it", ("x",))

    state = becomes(result.id, State.PARKED)

    assert (state.task, state.queue) == ("shop.nobody_has_it", "default")
    assert "parked" in happened(state)


def test_a_finished_task_says_where_and_when_it_succeeded(worker: StartWorker) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    result = watched.quick.delay()

    state = becomes(result.id, State.SUCCEEDED)

    assert (state.queue, state.task, state.attempts) == ("default", "tests.integration.watched.quick", 1)
    assert state.node.startswith("w1@")
    assert abs(state.timeline[-1].at - time.time()) < 30
    assert happened(state)[-1] == "succeeded"


def test_a_task_that_failed_for_good_is_dead_with_its_error_and_its_letter(
    worker: StartWorker, redis_server: RedisServer
) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    result = watched.fail.delay()

    state = becomes(result.id, State.DEAD)
    assert (state.letter, state.attempts, state.celery_state) == ("default/1", 1, "FAILURE")
    assert state.error == "ValueError: no \x1b[2Jgood"
    assert "in fail" in state.traceback
    assert happened(state)[-2:] in (["failed", "buried"], ["buried", "failed"])

    taskapp(redis_server, "dead", "purge", "default/1", "--yes")
    assert task_state(result.id).state is State.FAILED


def test_a_failure_that_is_not_kept_is_failed(worker: StartWorker) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    result = watched.fail_unkept.delay()

    state = becomes(result.id, State.FAILED)

    assert (state.error, state.letter) == ("ValueError: not kept", "")


def test_a_replayed_letter_is_queued_again_though_its_result_says_failure(
    worker: StartWorker, redis_server: RedisServer
) -> None:
    node = worker(TASKAPP_INCLUDE=WATCHED)
    result = watched.fail.delay()
    becomes(result.id, State.DEAD)
    node.terminate()

    taskapp(redis_server, "dead", "replay", "default/1")

    assert task_state(result.id).state is State.QUEUED
    assert result.state == "FAILURE"


def test_a_retry_says_when_it_runs_next_and_why_each_run_before_it_failed(worker: StartWorker) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    quick, slow = watched.try_again.delay(0.05), watched.try_again.delay(3_600)

    dead, state = becomes(quick.id, State.DEAD), becomes(slow.id, State.RETRYING)
    eventually(lambda: task_state(slow.id).timeline and "retried" in happened(task_state(slow.id)))
    state = task_state(slow.id)

    assert abs(state.next_at - time.time() - 3_600) < 60
    assert (state.attempts, state.error, state.celery_state) == (1, "ConnectionError: refused 0", "RETRY")
    eventually(lambda: happened(task_state(quick.id)).count("retried") == 3)
    retried = [moment.detail for moment in task_state(quick.id).timeline if moment.what == "retried"]
    assert retried == [f"attempt {n + 1}: ConnectionError: refused {n}" for n in range(3)]
    assert dead.attempts == 4
    assert "submitted" not in happened(task_state(quick.id)) + happened(state)


def test_a_revoked_task_is_cancelled_before_and_after_a_node_took_it(app: Celery, worker: StartWorker) -> None:
    waits, late = shop.greet.apply_async(("you",), queue="low"), shop.greet.apply_async(("you",), countdown=3_600)
    app.control.revoke([waits.id, late.id])  # nobody is there to hear it

    before = task_state(waits.id)
    assert (before.state, happened(before)[-1]) == (State.CANCELLED, "revoked")
    assert task_state(late.id).state is State.CANCELLED
    worker("--without-mingle", TASKAPP_INCLUDE="tests.integration.shop")
    eventually(lambda: waits.state == "REVOKED")
    after = task_state(waits.id)
    assert (after.state, after.celery_state) == (State.CANCELLED, "REVOKED")
    assert shop.greet.delay("me").get(timeout=20) == "hello me"


def test_a_cancelled_delayed_task_is_cancelled(redis_server: RedisServer) -> None:
    result = shop.greet.apply_async(("you",), countdown=3_600)

    taskapp(redis_server, "delayed", "cancel", result.id)

    assert task_state(result.id).state is State.CANCELLED


def test_an_expired_task_is_cancelled(worker: StartWorker) -> None:
    result = shop.greet.apply_async(("you",), expires=0.1)
    time.sleep(0.2)
    worker(TASKAPP_INCLUDE="tests.integration.shop")

    state = becomes(result.id, State.CANCELLED)

    assert state.error == "TaskRevokedError: expired"


@pytest.mark.parametrize("name", ["step", "step_softly", "step_in_child"])
def test_a_running_task_shows_its_node_its_start_and_its_progress(
    worker: StartWorker, tmp_path: Path, name: str
) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    result = getattr(watched, name).delay(str(tmp_path / "go"))
    eventually(lambda: task_state(result.id).progress and "started" in happened(task_state(result.id)))

    state = task_state(result.id)

    assert (state.state, state.attempts, state.celery_state) == (State.RUNNING, 1, "STARTED")
    assert state.node.startswith("w1@")
    assert (state.progress.done, state.progress.total, state.progress.attempt) == (1, 4, 1)
    assert state.progress.note == "half \x1b[31mred"
    (tmp_path / "go").touch()
    becomes(result.id, State.SUCCEEDED)
    # The last word is always kept, and when it began stays known.
    last = eventually(lambda: (now := task_state(result.id)).progress.done == 4 and now)
    assert happened(last) == ["submitted", "started", "succeeded"]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_progress_is_kept_in_every_pool(worker: StartWorker, tmp_path: Path, pool: str) -> None:
    worker("-P", pool, "-c", "1", TASKAPP_INCLUDE=WATCHED)
    result = watched.step.delay(str(tmp_path / "go"))
    eventually(lambda: task_state(result.id).progress)

    (tmp_path / "go").touch()

    assert eventually(lambda: (now := task_state(result.id)).progress.done == 4 and now).progress.note == "done"


def test_a_child_process_that_ends_after_its_task_has_written_the_last_word(worker: StartWorker) -> None:
    worker("-P", "prefork", "-c", "1", "--max-tasks-per-child", "1", TASKAPP_INCLUDE=WATCHED)

    results = [watched.race.delay(5) for _ in range(3)]

    for result in results:
        result.get(timeout=30)
        eventually(lambda r=result: (said := task_state(r.id).progress) and said.done == 5)


def test_a_task_of_a_killed_node_is_running_until_it_goes_back_and_then_counts_its_crash(
    worker: StartWorker, tmp_path: Path
) -> None:
    node = worker("-P", "solo", TASKAPP_INCLUDE=WATCHED, TASKAPP_LEASE_SECONDS="1")
    result = watched.step.delay(str(tmp_path / "go"))
    becomes(result.id, State.RUNNING)
    node.kill()

    assert task_state(result.id).node.startswith("w1@")
    eventually(lambda: "about to return" in task_state(result.id).remark)
    worker("-Q", "low", name="w2", TASKAPP_LEASE_SECONDS="1")  # reaps, and takes none of it
    state = becomes(result.id, State.QUEUED)

    assert (state.attempts, state.crashes) == (1, 1)


def test_a_task_acknowledged_before_it_ran_is_running_by_its_result(worker: StartWorker, tmp_path: Path) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    result = watched.early.delay(str(tmp_path / "go"))

    # Between its acknowledgement and its first sign of life, 0.2 s later, nothing in Redis knows of it.
    eventually(lambda: "acknowledged before" in task_state(result.id).remark)

    state = task_state(result.id)
    assert (state.state, state.node.partition("@")[0]) == (State.RUNNING, "w1")
    (tmp_path / "go").touch()
    becomes(result.id, State.SUCCEEDED)


def test_steps_of_a_chain_have_their_own_states(worker: StartWorker) -> None:
    last = chain(shop.greet.s("you"), shop.greet.si("me").set(countdown=3_600)).delay()
    worker(TASKAPP_INCLUDE="tests.integration.shop")

    becomes(last.parent.id, State.SUCCEEDED)
    assert task_state(last.id).state is State.DELAYED


# --- cost -----------------------------------------------------------------------------------------


def test_a_task_that_says_nothing_leaves_nothing_behind(
    worker: StartWorker, redis_server: RedisServer, app: Celery
) -> None:
    node = worker(TASKAPP_INCLUDE=WATCHED)
    results = [watched.quick.delay() for _ in range(100)]
    for result in results:
        result.get(timeout=20)
    watched.race.delay(1).get(timeout=20)
    eventually(lambda: list(redis_server.client.scan_iter("taskapp:task:*")))

    assert len(list(redis_server.client.scan_iter("taskapp:task*"))) == 1
    node.terminate()
    assert "Traceback" not in node.output()


def test_progress_said_often_is_written_a_few_times_a_second(worker: StartWorker, redis_server: RedisServer) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    began_at = time.monotonic()
    result = watched.race.delay(300_000)
    result.get(timeout=60)
    eventually(lambda: task_state(result.id).progress.done == 300_000)
    took_seconds = time.monotonic() - began_at

    (scribe,) = redis_server.client.scan_iter("taskapp:scribe:*")
    assert 2 <= int(redis_server.client.get(scribe)) <= 4 * took_seconds + 2
    assert 0 < redis_server.client.ttl(f"taskapp:task:{result.id}") <= 86_400


@pytest.mark.parametrize("word", [("3",), (True,), (1, "10"), (float("nan"),), (1, float("inf"))])
def test_progress_that_is_no_number_is_refused(word: tuple) -> None:
    with pytest.raises((TypeError, ValueError), match=r"call progress|use a finite number"):
        watched.step.progress(*word)


def test_progress_outside_a_worker_does_nothing(redis_server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "go").touch()

    assert watched.step(str(tmp_path / "go")) == "stepped"
    assert watched.step.apply((str(tmp_path / "go"),)).get() == "stepped"
    assert not list(redis_server.client.scan_iter("taskapp:task*"))


# --- what people read -----------------------------------------------------------------------------


def test_an_id_nobody_knows_is_said_with_a_remedy(redis_server: RedisServer) -> None:
    done = taskapp(redis_server, "task", "show", "5e4a-none")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "Error: no task with the id '5e4a-none' is waiting, is running or has a result; check the id"
    )
    as_json = taskapp(redis_server, "task", "show", "5e4a-none", "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["state"]) == (1, "unknown")


@pytest.mark.parametrize("task_id", ["", " ", "a\nb", "\x1b[2J", "*", "<X>", "ü" * 300, "\udcff", "--", "'; DROP"])
def test_any_text_may_be_asked_for(redis_server: RedisServer, task_id: str) -> None:
    done = taskapp(redis_server, "task", "show", "--", task_id)

    assert done.returncode == 1
    assert done.stderr.startswith("Error: no task with the id ")
    assert "\x1b" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_hostile_does_not_reach_the_terminal(
    worker: StartWorker, redis_server: RedisServer, app: Celery
) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    odd = "id\n\x1b[2J\u202e"
    watched.fail.apply_async(task_id=odd)
    becomes(odd, State.DEAD)
    waits = app.send_task("shop.greet", ("\x1b]0;owned\x07",), queue="low", argsrepr="\x1b]0;owned\x07")

    done = taskapp(redis_server, "task", "show", odd, "--traceback")

    assert done.returncode == 0
    text = done.stdout + taskapp(redis_server, "task", "show", waits.id).stdout
    assert all(each.isprintable() or each == "\n" for each in text), ascii(text)
    assert "ValueError: no \\x1b[2Jgood" in text


def test_show_is_for_people_and_for_machines(worker: StartWorker, redis_server: RedisServer, tmp_path: Path) -> None:
    worker(TASKAPP_INCLUDE=WATCHED)
    result = watched.step.apply_async((str(tmp_path / "go"),), priority=4)
    eventually(lambda: task_state(result.id).progress)

    text, machine = taskapp(redis_server, "task", "show", result.id).stdout, shown(redis_server, result.id)

    assert "state      running" in text
    assert "queue      default, priority 4" in text
    assert "progress   1 of 4 (25%), half \\x1b[31mred, at 20" in text
    assert (machine["state"], machine["priority"], machine["progress"]["total"]) == ("running", 4, 4)
    (tmp_path / "go").touch()


def test_on_a_broker_that_does_not_tell_only_the_result_is_known(redis_server: RedisServer, tmp_path: Path) -> None:
    elsewhere = {"TASKAPP_BROKER_URL": "memory://", "TASKAPP_RESULT_URL": ""}
    none = taskapp(redis_server, "task", "show", "x", "--json", **elsewhere)
    lines = taskapp(redis_server, "task", "logs", "x", **elsewhere)
    elsewhere["TASKAPP_RESULT_URL"] = f"db+sqlite:///{tmp_path}/results.sqlite"
    script = (
        "from taskapp.celery import app\n"
        "app.backend.mark_as_failure('x', ValueError('bad'), traceback='Traceback: here')"
    )
    environment = clean_environment(**elsewhere)
    run_python("-c", script, env=environment, check=True)
    failed = taskapp(redis_server, "task", "show", "x", "--json", **elsewhere)

    assert (none.returncode, json.loads(none.stdout)["state"]) == (1, "unknown")
    assert "does not show" in json.loads(none.stdout)["remark"]
    assert (lines.returncode, lines.stderr.count("\n")) == (1, 1)
    assert "neither the broker nor the result backend is one" in lines.stderr
    assert json.loads(failed.stdout)["error"] == "ValueError: bad"
    assert [moment["what"] for moment in json.loads(failed.stdout)["timeline"]] == ["failed"]


def test_a_broker_that_is_away_is_one_sentence(redis_server: RedisServer) -> None:
    redis_server.stop()

    done = taskapp(redis_server, "task", "show", "x", TASKAPP_SUBMIT_DEADLINE_SECONDS="1")

    assert done.returncode == 1
    assert "cannot reach the broker" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_frozen_redis_holds_up_no_task_that_says_how_far_it_is(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path
) -> None:
    node = worker(TASKAPP_INCLUDE=WATCHED)
    result = watched.step_softly.delay(str(tmp_path / "go"))
    eventually(lambda: task_state(result.id).progress)

    redis_server.process.kill()
    (tmp_path / "go").touch()
    time.sleep(1)
    redis_server.start()

    assert result.get(timeout=40) == "stepped"
    eventually(lambda: task_state(result.id).progress.done == 4)
    assert node.returncode is None
    assert os.kill(node.pid, signal.SIGCONT) is None
