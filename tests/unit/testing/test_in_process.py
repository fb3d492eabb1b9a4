"""The testing kit in one process: what users submit, runs as on a node, when told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest
from celery import chain, chord, group
from celery.exceptions import TimeoutError as ResultTimeoutError
from celery.schedules import crontab
from celery.worker import state as worker_state
from hypothesis import given, settings, strategies

from taskapp import Celery
from taskapp.errors import InvalidPayload
from taskapp.errors.testing import BackwardsInTime, BadTime, NoSuchTaskType, NotInKit, TooManyRuns, UnknownEntry
from taskapp.testing import ResultNotReady, Submitted, Tasks, call, in_process
from taskapp.testing.internals import current_app_of_thread
from taskapp.worker.run.execute import forget_runners, runner_of
from taskapp.worker.run.tracer import Runner
from tests.unit.testing import kit_project as kit

START = "2026-03-01T12:00:00"
END = datetime(2026, 3, 1, 12, 10, tzinfo=UTC)


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    kit.seen.clear()
    with in_process(kit.app, start=START) as tasks:
        yield tasks


# --- submitting ---------------------------------------------------------------------------------------


def test_nothing_runs_until_told(tasks: Tasks) -> None:
    result = kit.add.delay(2, 3)

    assert not tasks.runs
    assert result.state == "PENDING"
    assert [run.name for run in tasks.run_due()] == ["kit.add"]
    assert (result.state, result.get()) == ("SUCCESS", 5)


def test_what_was_submitted_is_listed_with_its_options(tasks: Tasks) -> None:
    kit.add.apply_async(
        (1,), {"y": 2}, countdown=90, expires=600, priority=7, queue="low", time_limit=30, headers={"tenant": "acme"}
    )

    eta = datetime(2026, 3, 1, 12, 1, 30, tzinfo=UTC)
    assert tasks.submitted == [
        Submitted(
            "kit.add", (1,), {"y": 2}, queue="low", priority=7, eta=eta, expires=END,
            options={"time_limit": 30, "headers": {"tenant": "acme"}},
        )
    ]  # fmt: skip
    assert "kit.add(1, y=2) <queue='low', priority=7, eta=2026-03-01T12:01:30+00:00" in repr(tasks.submitted[0])


def test_every_way_to_submit_is_seen(tasks: Tasks) -> None:
    kit.add.delay(1, 1)
    kit.app.send_task("kit.add", (2, 2))
    kit.add.s(3, 3).apply_async()
    kit.add.submit_many([(4, 4), (5, 5)])
    kit.shared.delay(6)

    assert tasks.submitted == [*(call(kit.add, n, n) for n in range(1, 6)), call("kit.shared", 6)]
    tasks.run_due()
    assert [run.result for run in tasks.runs] == [2, 4, 6, 8, 10, 12]


async def submits() -> list[object]:
    first = await kit.add.adelay(1, 2)
    many = await kit.async_add.asubmit_many([(1, 1), (2, 2)])
    return [await first.aget(), *[await each.aget() for each in many]]


def test_coroutines_submit_and_await(tasks: Tasks) -> None:
    import asyncio

    assert asyncio.run(submits()) == [3, 2, 4]


def test_arguments_arrive_as_json_makes_them(tasks: Tasks) -> None:
    kit.note.delay((1, 2), when={1: "one"})
    tasks.run_due()

    assert kit.seen == [[[1, 2], {"when": {"1": "one"}}]]
    tasks.assert_submitted(kit.note, (1, 2), when={"1": "one"})


def test_what_json_cannot_represent_fails_at_the_caller(tasks: Tasks) -> None:
    with pytest.raises(InvalidPayload, match="only values that JSON can represent"):
        kit.add.delay(object(), 1)
    with pytest.raises(TypeError):
        kit.add.delay(1)
    assert not tasks.submitted


def test_models_are_checked_and_arrive_as_models(tasks: Tasks) -> None:
    with pytest.raises(InvalidPayload, match=r"given\.id"):
        kit.order.delay({"id": "x"})

    result = kit.order.delay(kit.Order(id=3, lines=["a"]))

    tasks.assert_submitted(kit.order, kit.Order(id=3, lines=["a"]))
    assert result.get() == {"id": 3, "lines": ["a"]}
    assert kit.seen == [kit.Order(id=3, lines=["a"])]


# --- running ------------------------------------------------------------------------------------------


def test_tasks_run_in_the_order_of_the_engine(tasks: Tasks) -> None:
    kit.note.apply_async(("plain",))
    kit.note.apply_async(("urgent",), priority=9)
    kit.note.apply_async(("second",), priority=9)
    kit.note.apply_async(("lowest",), priority=0)
    kit.note.apply_async(("other queue",), queue="zz", priority=9)

    assert [record.args[0] for record in tasks.waiting] == ["urgent", "second", "plain", "lowest", "other queue"]
    tasks.run_due()
    assert [args[0] for args in kit.seen] == ["urgent", "second", "plain", "lowest", "other queue"]


def test_canvas_of_every_kind(tasks: Tasks) -> None:
    add, total = kit.add, kit.total

    assert chain(add.s(1, 2), add.s(3), add.s(4))().get() == 10
    assert group(add.s(i, i) for i in range(4))().get() == [0, 2, 4, 6]
    assert chord([add.s(1, 2), add.s(3, 4)], total.s())().get() == 10
    assert chord([chain(add.s(1, 1), add.s(1)), add.s(5, 5)], total.s())().get() == 13
    assert chain(group(add.s(1, 1), add.s(2, 2)), total.s(), add.s(100))().get() == 106
    nested = chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(3, 3)], total.s())
    assert nested().get() == 12
    assert kit.replaced.delay(1).get() == 101
    assert kit.fan_out.delay(3).get() == [0, 2, 4]
    assert not tasks.waiting


def test_a_part_of_a_chord_may_retry(tasks: Tasks) -> None:
    result = chord([kit.flaky.s(2), kit.add.s(1, 1)], kit.total.s())()

    tasks.advance("2m")

    assert result.get() == 4


def test_the_end_of_a_chord_comes_before_what_waits(tasks: Tasks) -> None:
    chord([kit.add.s(1, 2), kit.add.s(3, 4)], kit.total.s())()
    kit.parent.delay(1)

    tasks.run_due()

    assert [run.name for run in tasks.runs] == ["kit.add", "kit.add", "kit.parent", "kit.total", "kit.note"]


def test_links_run_after_their_task(tasks: Tasks) -> None:
    kit.add.apply_async((1, 2), link=kit.note.s("linked"))
    failing = kit.fail.apply_async(
        ("bad",), link=kit.note.s("never"), link_error=[kit.error_seen.s(), kit.failed_id.s()]
    )

    tasks.run_due(keep_failures=True)

    # An errback of three arguments is called where its task failed; others are tasks.
    assert kit.seen == [(failing.id, "bad"), [3, "linked"], failing.id]


def test_a_failed_header_fails_its_chord(tasks: Tasks) -> None:
    result = chord([kit.add.s(1, 2), kit.fail.s("bad")], kit.total.s())()

    tasks.run_due(keep_failures=True)

    assert result.state == "FAILURE"
    assert [run.name for run in tasks.failures] == ["kit.fail"]


def test_retries_wait_for_their_countdown(tasks: Tasks) -> None:
    result = kit.flaky.delay(3)

    tasks.run_due()
    assert result.state == "RETRY"
    assert [(record.name, record.retries, record.eta) for record in tasks.waiting] == [
        ("kit.flaky", 1, tasks.now + timedelta(seconds=60))
    ]
    tasks.advance("59s")
    assert len(tasks.runs) == 1
    tasks.advance("10m")

    assert result.get() == 3
    assert kit.seen == [datetime(2026, 3, 1, 12, minute, tzinfo=UTC) for minute in range(4)]
    assert [run.state for run in tasks.runs] == ["RETRY", "RETRY", "RETRY", "SUCCESS"]
    assert tasks.submitted == [call(kit.flaky, 3)]


def test_a_task_that_is_out_of_retries_fails_with_its_own_error(tasks: Tasks) -> None:
    kit.auto.delay(1)

    with pytest.raises(ConnectionError, match="away"):
        tasks.advance("1h")

    assert [run.at for run in tasks.runs] == [
        datetime(2026, 3, 1, 12, 0, second, tzinfo=UTC) for second in (0, 1, 3)
    ]  # fmt: skip


def test_each_kind_of_task_runs(tasks: Tasks) -> None:
    assert kit.async_add.delay(1, 2).get() == 3
    assert kit.greeter.delay("Ada").get() == "hello Ada"
    assert kit.shared.delay(4).get() == 8
    assert kit.request_of.apply_async(queue="low", headers={"tenant": "acme"}).get() == {
        "retries": 0, "queue": "low", "headers": {"tenant": "acme"},
    }  # fmt: skip


def test_children_and_parents_are_recorded(tasks: Tasks) -> None:
    result = kit.parent.delay(2)
    tasks.run_due()

    assert [child.id for child in result.children] == [record.id for record in tasks.submitted[1:]]
    assert [record.parent_id for record in tasks.submitted] == [None, result.id, result.id]
    assert {record.root_id for record in tasks.submitted} == {result.id}


def test_an_ignored_result_is_not_kept(tasks: Tasks) -> None:
    result = kit.quiet.delay(1)
    tasks.run_due()

    assert kit.seen == [1]
    assert (result.get(), kit.app.AsyncResult(result.id).state) == (None, "PENDING")


@pytest.mark.parametrize(("how", "states"), [
    ("ignore", ["IGNORED"]), ("reject", ["REJECTED"]), ("requeue", ["REJECTED", "SUCCESS"]),
])  # fmt: skip
def test_ends_without_a_result(tasks: Tasks, how: str, states: list[str]) -> None:
    kit.ends.delay(how)
    tasks.run_due()

    assert [run.state for run in tasks.runs] == states
    assert not tasks.waiting


def test_a_task_must_not_wait_for_another(tasks: Tasks) -> None:
    kit.waits.delay()

    with pytest.raises(RuntimeError, match=r"Never call result.get\(\) within a task"):
        tasks.run_due()


# --- time ---------------------------------------------------------------------------------------------


def test_delayed_tasks_run_at_their_time_and_in_order(tasks: Tasks) -> None:
    kit.note.apply_async(("b",), countdown=120)
    kit.note.apply_async(("a",), eta=datetime(2026, 3, 1, 12, 1, tzinfo=UTC))
    kit.note.apply_async(("c",), countdown=0.25)

    tasks.advance(0.25)
    assert [run.result for run in tasks.runs] == [["c"]]
    tasks.advance(timedelta(hours=1))

    assert [(run.result, run.at.minute) for run in tasks.runs] == [(["c"], 0), (["a"], 1), (["b"], 2)]
    assert tasks.now == datetime(2026, 3, 1, 13, 0, 0, tzinfo=UTC) + timedelta(seconds=0.25)


def test_an_expired_task_does_not_run(tasks: Tasks) -> None:
    late = kit.note.apply_async(("late",), countdown=60, expires=30)
    kit.note.apply_async(("in time",), countdown=60, expires=90)

    tasks.advance("2m")

    assert kit.seen == [["in time"]]
    assert late.state == "REVOKED"
    assert [run.state for run in tasks.runs] == ["REVOKED", "SUCCESS"]


def test_expiry_survives_a_retry(tasks: Tasks) -> None:
    result = kit.flaky.apply_async((3,), expires=90)

    tasks.advance("1h")

    assert [run.state for run in tasks.runs] == ["RETRY", "RETRY", "REVOKED"]
    assert result.state == "REVOKED"


def test_results_expire_by_the_clock(tasks: Tasks) -> None:
    result = kit.add.delay(1, 2)
    tasks.run_due()

    tasks.advance(kit.app.conf.result_expires - timedelta(seconds=1))
    assert kit.app.AsyncResult(result.id).state == "SUCCESS"
    tasks.advance(2)
    assert kit.app.AsyncResult(result.id).state == "PENDING"


def test_schedules_are_queued_once_a_beat_was_started(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kit.app.conf.beat_schedule, "noon", {
        "task": "kit.note", "schedule": crontab(hour="13", minute="30"), "args": ("cron",), "options": {"queue": "low"},
    })  # fmt: skip
    tasks.advance("1h")
    assert not tasks.submitted

    tasks.start_beat()
    tasks.advance("35m")

    assert [(run.result, run.at.minute) for run in tasks.runs] == [
        (["tick"], 10), (["tick"], 20), (["tick"], 30), (["cron"], 30),
    ]  # fmt: skip
    assert tasks.submitted[-1].options["headers"]["periodic_task_name"] == "noon"


def test_one_entry_of_the_beat_can_be_chosen(tasks: Tasks) -> None:
    tasks.start_beat("every-ten-minutes")
    tasks.advance("10m")

    assert kit.seen == [["tick"]]
    with pytest.raises(UnknownEntry, match=r"no entry 'every-minute'; did you mean 'every-ten-minutes'\?"):
        tasks.start_beat("every-minute")


def test_the_clock_does_not_move_back(tasks: Tasks) -> None:
    with pytest.raises(BackwardsInTime):
        tasks.advance(-1)


def test_a_revoked_task_does_not_run(tasks: Tasks) -> None:
    result = kit.note.delay("revoked")
    result.revoke()
    tasks.run_due()

    assert (kit.seen, result.state) == ([], "REVOKED")


# --- waiting ------------------------------------------------------------------------------------------


def test_a_wait_runs_what_is_due(tasks: Tasks) -> None:
    kit.note.delay("earlier")

    assert kit.add.delay(1, 2).get(timeout=5) == 3
    assert kit.seen == [["earlier"]]


def test_a_wait_for_the_future_says_what_to_do(tasks: Tasks) -> None:
    result = kit.add.apply_async((1, 2), countdown=60)

    with pytest.raises(ResultNotReady) as caught:
        result.get()

    assert isinstance(caught.value, ResultTimeoutError)
    assert str(caught.value) == (
        f"the result is not ready and nothing is due; waiting: kit.add[{result.id}] due in 0:01:00; "
        "move the clock with tasks.advance(…)"
    )


def test_a_failed_task_raises_where_it_is_awaited(tasks: Tasks) -> None:
    with pytest.raises(ValueError, match="no"):
        kit.fail.delay().get()


def test_every_way_to_wait_runs_what_is_due(tasks: Tasks) -> None:
    def many() -> Any:
        return group(kit.add.s(i, i) for i in range(3))()

    assert many().join() == [0, 2, 4]
    assert many().join_native() == [0, 2, 4]
    assert sorted(value["result"] for _, value in many().iter_native()) == [0, 2, 4]
    assert [value for _, value in kit.parent.delay(2).collect()] == ["sent", [0], [1]]
    assert many().children
    assert kit.add.delay(1, 1).wait() == 2


# --- failures -----------------------------------------------------------------------------------------


def test_a_failed_task_raises_its_own_error_with_its_own_frames(tasks: Tasks) -> None:
    kit.fail.delay("first")
    kit.note.delay("second")

    with pytest.raises(ValueError, match="first") as caught:
        tasks.run_due()

    assert caught.traceback[-1].name == "fail"
    assert [entry.path.name for entry in caught.traceback if "taskapp/worker" in str(entry.path)] == []
    assert caught.value.__notes__[0].startswith("raised by task kit.fail[")
    assert [record.name for record in tasks.waiting] == ["kit.note"]


def test_failures_can_be_kept(tasks: Tasks) -> None:
    kit.fail.delay("first")
    kit.fail.delay("second")

    tasks.run_due(keep_failures=True)

    assert [str(run.error) for run in tasks.failures] == ["first", "second"]


def test_an_error_that_cannot_be_pickled_is_raised_itself(tasks: Tasks) -> None:
    kit.awkward.delay()

    with pytest.raises(kit.Awkward) as caught:
        tasks.run_due()

    assert caught.value.code == 7


def test_an_exit_in_a_task_is_raised(tasks: Tasks) -> None:
    kit.ends.delay("exit")

    with pytest.raises(SystemExit):
        tasks.run_due()


def test_a_task_type_that_the_app_lacks_is_an_error(tasks: Tasks) -> None:
    kit.app.send_task("kit.ad", (1, 2))

    with pytest.raises(NoSuchTaskType, match=r"no task type 'kit.ad'; did you mean 'kit.add'\?"):
        tasks.run_due()


def test_tasks_that_submit_themselves_end(tasks: Tasks) -> None:
    kit.again.delay()

    with pytest.raises(TooManyRuns, match=r"20 tasks ran and more are due, last kit\.again"):
        tasks.run_due(most=20)


# --- comparing ----------------------------------------------------------------------------------------


def test_assertions_compare_arguments(tasks: Tasks) -> None:
    kit.add.delay(2, 3)
    kit.note.delay(1, key="x")

    assert tasks.assert_submitted(kit.add, 2, 3).queue == "celery"
    tasks.assert_submitted(kit.add)
    tasks.assert_submitted("kit.note", ANY, key="x")
    tasks.assert_submitted(kit.add.s(2, 3))
    tasks.assert_not_submitted(kit.add, 3, 2)
    tasks.assert_not_submitted(kit.total)
    assert tasks.submitted == [call(kit.add, 2, 3), call(kit.note, 1, key="x")]
    assert tasks.submitted[0] != call(kit.add)


def test_a_failed_assertion_shows_the_difference(tasks: Tasks) -> None:
    kit.add.delay(2, 3)
    kit.note.delay(1, key="x")

    with pytest.raises(AssertionError) as caught:
        tasks.assert_submitted(kit.note, 2, other=1)

    assert str(caught.value).splitlines() == [
        "kit.note(2, other=1) was not submitted",
        "  submitted: kit.note(1, key='x') <queue='celery'>",
        "    argument 0: expected 2, got 1",
        "    other: expected 1, got none",
        "    key: expected none, got 'x'",
        "  other tasks:",
        "    kit.add(2, 3) <queue='celery'>",
    ]


def test_a_failed_assertion_knows_the_names(tasks: Tasks) -> None:
    with pytest.raises(AssertionError) as caught:
        tasks.assert_submitted("kit.ad", 1)

    assert str(caught.value).splitlines() == [
        "kit.ad(1) was not submitted; the app has no such task type; did you mean 'kit.add'?",
        "  submitted:",
        "    nothing",
    ]


def test_what_must_not_be_submitted_is_shown(tasks: Tasks) -> None:
    kit.add.delay(2, 3)

    with pytest.raises(AssertionError) as caught:
        tasks.assert_not_submitted(kit.add)

    assert str(caught.value).splitlines() == ["kit.add was submitted once:", "  kit.add(2, 3) <queue='celery'>"]


# --- the app afterwards -------------------------------------------------------------------------------


def test_the_app_is_as_it_was(tasks: Tasks) -> None:
    with pytest.raises(NotInKit, match="use the fixture `taskapp_worker`"), kit.app.engine():
        pass


def test_everything_is_put_back() -> None:
    app = kit.app
    before = dict(app.__dict__), dict(app.conf.changes), app.amqp.__dict__.get("Connection")

    with in_process(app) as tasks:
        kit.add.delay(1, 2)
        tasks.run_due()

    assert (dict(app.__dict__).keys(), dict(app.conf.changes), app.amqp.__dict__.get("Connection")) == (
        before[0].keys(), before[1], before[2],
    )  # fmt: skip
    assert {name: value for name, value in app.__dict__.items() if before[0][name] is not value}.keys() <= {"_local"}


def test_the_process_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("broker_url", "result_backend"):
        monkeypatch.setitem(kit.app.conf.changes, name, "redis://never.invalid")
    Celery("another")
    before = current_app_of_thread()

    with in_process(kit.app) as tasks:
        revoked = kit.add.delay(1, 2)
        revoked.revoke()
        tasks.run_due()
        assert revoked.state == "REVOKED"

    assert current_app_of_thread() == before
    kit.app.set_current()
    assert revoked.id not in worker_state.revoked  # type: ignore[operator]  # the stubs are incomplete
    assert type(runner_of("kit.add", {})) is Runner
    forget_runners()


def test_a_kit_inside_another_leaves_it_as_it_was() -> None:
    with in_process(kit.app) as outer:
        kit.add.delay(1, 1)
        with in_process(kit.app) as inner:
            assert kit.add.delay(2, 2).get() == 4
            assert inner.submitted == [call(kit.add, 2, 2)]
        with kit.app.connection_for_write() as connection:
            kit.add.apply_async((3, 3), connection=connection)

        assert [run.result for run in outer.run_due()] == [2, 6]


def test_one_test_does_not_see_the_tasks_of_another() -> None:
    with in_process(kit.app):
        result = kit.add.delay(1, 2)
        assert result.get() == 3

    with in_process(kit.app) as tasks:
        assert not tasks.submitted
        assert not tasks.waiting
        assert kit.app.AsyncResult(result.id).state == "PENDING"


def test_eager_settings_do_not_hide_the_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kit.app.conf.changes, "task_always_eager", True)

    with in_process(kit.app) as tasks:
        kit.add.delay(1, 2)
        assert tasks.submitted == [call(kit.add, 1, 2)]
        assert not tasks.runs

    assert kit.app.conf.task_always_eager is True


# --- generated ----------------------------------------------------------------------------------------

SUBMITS = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(["celery", "low", "other"]), strategies.integers(0, 9), strategies.integers(0, 5)
    ),
    max_size=20,
)


@settings(max_examples=50, deadline=None)
@given(SUBMITS, strategies.lists(strategies.integers(0, 4), max_size=6))
def test_any_tasks_run_at_their_time_in_the_order_of_the_engine(
    submits: list[tuple[str, int, int]], steps: list[int]
) -> None:
    with in_process(kit.app, start=START) as tasks:
        for number, (queue, priority, seconds) in enumerate(submits):
            kit.note.apply_async((number,), queue=queue, priority=priority, countdown=seconds or None)
        began = tasks.now
        for step in [*steps, 10]:
            tasks.advance(step)
        ran = [(int((run.at - began).total_seconds()), run.result[0]) for run in tasks.runs]

    queues = list(dict.fromkeys(["celery", *(queue for queue, _, seconds in submits)]))
    expected = sorted(
        (seconds, queues.index(queue), -priority, number) for number, (queue, priority, seconds) in enumerate(submits)
    )
    assert ran == [(seconds, number) for seconds, _, _, number in expected]


BAD_TIMES: dict[str, tuple[Any, str]] = {
    "a unit": ("1x", "'x' is not a unit; give ms, s, m, h, d or w"),
    "nothing": ("", "it does not consist of numbers with units"),
    "None": (None, "it is of the type NoneType; give '1h 30m', seconds, or a timedelta"),
    "infinite": (float("inf"), "it is not a finite number"),
    "nan": (float("nan"), "it is not a finite number"),
    "ages": (10**12, "it is longer than a hundred years; give less"),
}


@pytest.mark.parametrize("kind", BAD_TIMES)
def test_what_is_no_duration_is_refused_by_advance(tasks: Tasks, kind: str) -> None:
    duration, problem = BAD_TIMES[kind]
    with pytest.raises(BadTime) as caught:
        tasks.advance(duration)

    assert str(caught.value).startswith(f"advance() cannot be {duration!r}: {problem}")


@pytest.mark.parametrize("start", ["yesterday", [1], float("nan")])
def test_what_is_no_time_is_refused_as_a_start(start: Any) -> None:
    with pytest.raises(BadTime, match=r"^start cannot be "), in_process(kit.app, start=start):
        pass
