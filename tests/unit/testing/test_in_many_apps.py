"""The kit takes any app: other brokers and stores, serializers, zones, hooks, classes of the project's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Task as StockTask
from celery import chord, group, signals
from celery.result import GroupResult
from celery.schedules import crontab
from celery.worker.request import Request as StockRequest
from kombu import Exchange, Queue
from kombu.common import Broadcast
from kombu.exceptions import EncodeError

from taskapp import Celery
from taskapp.app.task import Task
from taskapp.errors import InvalidPayload, UnknownQueue
from taskapp.errors.testing import NotInKit, UnusableMessage
from taskapp.testing import call, in_process
from taskapp.worker.consume.strategy import Strategy

Made = tuple[Celery, Any, Any]


def app_with(**conf: Any) -> Made:
    app = Celery("many", set_as_current=False)
    app.conf.update(conf)

    @app.task(shared=False, name="many.add")
    def add(x: Any, y: Any) -> Any:
        return x + y

    @app.task(shared=False, name="many.total")
    def total(values: Any) -> Any:
        return sum(values)

    return app, add, total


@pytest.mark.parametrize(
    "conf",
    [
        {"broker_url": "amqp://guest:guest@never.invalid//"},
        {"broker_url": "amqp://never.invalid", "result_backend": "cache+memory://"},
        {"broker_url": "redis://never.invalid", "result_backend": "db+sqlite:///never.db"},
        {"broker_url": "redis://one.invalid", "result_backend": "redis://two.invalid"},
        {"broker_url": "redis://one.invalid", "broker_write_url": "redis://two.invalid"},
        {"broker_url": "sentinel://one.invalid;sentinel://two.invalid", "taskapp_sentinel_master": "m"},
        {"result_backend": "disabled"},
        {"task_protocol": 1},
        {"task_acks_late": False},
        {"task_compression": "zlib"},
        {"result_compression": "zlib"},
        {"task_serializer": "pickle", "accept_content": ["pickle", "json"]},
        {"result_serializer": "pickle", "result_accept_content": ["pickle", "json"]},
        {"task_send_sent_event": False, "worker_send_task_events": False, "task_track_started": False},
        {"task_default_queue": "mine", "task_default_priority": 3},
        {"timezone": "Europe/Berlin", "enable_utc": False},
        {"task_store_errors_even_if_ignored": True, "task_ignore_result": False},
        {"task_always_eager": True, "task_eager_propagates": True},
        {"worker_deduplicate_successful_tasks": True},
        {"task_inherit_parent_priority": True, "task_remote_tracebacks": True},
        {"task_default_rate_limit": "1/h", "task_soft_time_limit": 1, "task_time_limit": 2},
        {"broker_pool_limit": 0},
        {"result_expires": None},
        {"global_keyprefix": "x", "taskapp_key_prefix": "y:"},
        {"task_annotations": {"*": {"rate_limit": "1/m"}}},
    ],
    ids=str,
)  # fmt: skip
def test_the_same_tasks_run_whatever_the_configuration(conf: dict[str, Any]) -> None:
    app, add, total = app_with(**conf)

    with in_process(app) as tasks:
        result = add.apply_async((1, 2), countdown=60)
        tasks.advance("1m")
        assert result.get() == 3
        assert chord([add.s(1, 2), add.s(3, 4)], total.s())().get() == 10
        assert tasks.submitted[0] == call(add, 1, 2)
        assert not tasks.waiting


def test_a_queue_that_no_node_takes_is_refused_at_the_caller() -> None:
    app, add, _ = app_with(task_queues=[Queue("celery")], task_create_missing_queues=False)

    with in_process(app) as tasks, pytest.raises(UnknownQueue):
        add.apply_async((1, 2), queue="celerry")
    assert not tasks.submitted


def test_pickle_arrives_as_pickle_makes_it() -> None:
    app, add, _ = app_with(task_serializer="pickle", accept_content=["pickle", "json"])

    with in_process(app):
        assert add.delay((1,), (2,)).get() == [1, 2]
        with pytest.raises((EncodeError, InvalidPayload)):
            add.delay(lambda: 1, 2)


def test_what_kombu_sends_is_taken_as_well() -> None:
    app, add, _ = app_with(
        task_queues=[Queue("celery"), Queue("topics", Exchange("topics", type="topic"), routing_key="news.#")]
    )

    with in_process(app) as tasks:
        add.apply_async((1, 1), exchange="topics", routing_key="news.today")
        with app.connection_for_write() as connection:
            add.apply_async((2, 2), connection=connection)
        with app.producer_or_acquire() as producer:
            add.apply_async((3, 3), producer=producer)
        with app.amqp.producer_pool.acquire() as producer:
            add.apply_async((4, 4), producer=producer, priority=9)

        assert [record.args[0] for record in tasks.submitted] == [1, 2, 3, 4]
        assert tasks.submitted[0].queue == "topics"
        assert [run.result for run in tasks.run_due()] == [8, 4, 6, 2]


def test_a_task_for_all_nodes_runs_on_the_only_one() -> None:
    app, add, _ = app_with(task_queues=[Queue("celery"), Broadcast("everybody")])

    with in_process(app) as tasks:
        add.apply_async((1, 1), queue="everybody")
        assert [run.result for run in tasks.run_due()] == [2]


def test_the_queue_can_be_purged_and_counted() -> None:
    app, add, _ = app_with()

    with in_process(app) as tasks:
        add.delay(1, 1)
        add.apply_async((1, 1), countdown=60)
        assert app.control.purge() == 2
        assert not tasks.waiting


def test_questions_to_nodes_have_no_answer() -> None:
    app, *_ = app_with()

    with in_process(app):
        assert app.control.ping() == []
        assert app.control.inspect().active() is None


def test_signals_are_sent_and_may_change_the_message() -> None:
    app, add, _ = app_with()
    heard: list[str] = []

    def before(headers: dict[str, Any], **_: Any) -> None:
        heard.append("before publish")
        headers["tenant"] = "acme"

    def on(name: str) -> Callable[..., None]:
        return lambda **_: heard.append(name)

    connected = [
        (signals.before_task_publish, before), (signals.after_task_publish, on("published")),
        (signals.task_received, on("received")), (signals.task_prerun, on("prerun")),
        (signals.task_success, on("success")), (signals.task_postrun, on("postrun")),
    ]  # fmt: skip
    for signal, receiver in connected:
        signal.connect(receiver, weak=False)
    try:
        with in_process(app) as tasks:
            add.delay(1, 2)
            tasks.run_due()
            assert tasks.submitted[0].options["headers"] == {"tenant": "acme"}
    finally:
        for signal, receiver in connected:
            signal.disconnect(receiver)

    assert heard == ["before publish", "published", "received", "prerun", "success", "postrun"]


def test_classes_of_the_project_are_used() -> None:
    used: list[str] = []

    class OwnRequest(StockRequest):
        def on_success(self, *args: Any, **options: Any) -> Any:
            used.append("request")
            return super().on_success(*args, **options)

        def on_accepted(self, *args: Any) -> Any:
            used.append("request")
            return super().on_accepted(*args)

    class OwnStrategy(Strategy):
        def __call__(self, *args: Any, **options: Any) -> None:
            used.append("strategy")
            super().__call__(*args, **options)

    class Base(Task):
        abstract = True
        Request = OwnRequest
        Strategy = OwnStrategy

        def before_start(self, *_: Any) -> None:
            used.append("before_start")

        def on_success(self, *_: Any) -> None:
            used.append("on_success")

        def after_return(self, *_: Any) -> None:
            used.append("after_return")

    app = Celery("classes", set_as_current=False)

    @app.task(shared=False, base=Base, name="classes.run")
    def run() -> int:
        return 1

    with in_process(app):
        assert run.delay().get() == 1
    assert used == ["strategy", "request", "before_start", "on_success", "after_return"]


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({}, "unreadable: headers: the task is missing"),
        ({"task": "many.add", "id": "x", "retries": "many"}, "unreadable: header 'retries': expected `int`, got `str`"),
    ],
)
def test_a_message_that_no_node_could_use_is_an_error(headers: dict[str, Any], problem: str) -> None:
    app, add, _ = app_with()

    with in_process(app) as tasks:
        with app.producer_or_acquire() as producer:
            producer.publish([], routing_key="celery", headers=headers, serializer="json")
        with pytest.raises(UnusableMessage, match=f"move this message to the dead letters: {problem}"):
            tasks.run_due()
        assert add.delay(1, 2).get() == 3


def test_a_strategy_that_keeps_messages_needs_a_node() -> None:
    app = Celery("batches", set_as_current=False)

    @app.task(shared=False, name="batches.run", Strategy=f"{__name__}:keeps_messages")
    def run() -> None: ...

    with in_process(app) as tasks:
        run.delay()
        with pytest.raises(
            NotInKit, match=r"task 'batches\.run', which has a Strategy of its own, needs a Redis server"
        ):
            tasks.run_due()


def keeps_messages(task: Any, app: Any, consumer: Any, **_: Any) -> Any:
    raise AssertionError


def test_a_task_type_with_a_backend_of_its_own_is_awaited_as_others() -> None:
    app = Celery("own", set_as_current=False)
    own = app_with(broker_url="redis://one.invalid", result_backend="redis://two.invalid")[0].backend

    @app.task(shared=False, name="own.run")
    def run() -> int:
        return 1

    run.backend = own
    with in_process(app):
        assert run.delay().get() == 1
    assert run.backend is own


def test_a_result_can_be_forgotten_stored_and_read_again() -> None:
    app, add, _ = app_with()

    with in_process(app) as tasks:
        result = add.delay(1, 2)
        tasks.run_due()
        saved = group(add.s(1, 1), add.s(2, 2))()
        saved.save()
        tasks.run_due()

        assert app.AsyncResult(result.id).info == 3
        assert GroupResult.restore(saved.id, app=app).get() == [2, 4]
        assert {name: result._get_task_meta()[name] for name in ("name", "args", "kwargs", "queue", "retries")} == {
            "name": "many.add", "args": [1, 2], "kwargs": {}, "queue": "celery", "retries": 0,
        }  # fmt: skip
        assert result.date_done.replace(tzinfo=UTC) == tasks.now
        result.forget()
        assert app.AsyncResult(result.id).state == "PENDING"


def test_a_task_shows_states_of_its_own() -> None:
    app = Celery("states", set_as_current=False)
    seen: list[tuple[str, Any]] = []

    @app.task(shared=False, name="states.run", bind=True)
    def run(self: Any) -> None:
        self.progress(1, 2)
        self.update_state(state="HALF", meta={"done": 50})
        result = app.AsyncResult(self.request.id)
        seen.append((result.state, result.info))

    with in_process(app):
        run.delay().get()
    assert seen == [("HALF", {"done": 50})]


def test_schedules_follow_the_zone_of_the_app() -> None:
    app, *_ = app_with(
        timezone="Europe/Berlin",
        beat_schedule={
            "morning": {"task": "many.add", "schedule": crontab(hour="6", minute="0"), "args": (1, 2)},
            "often": {"task": "many.add", "schedule": timedelta(hours=6), "args": (3, 4), "options": {"expires": 60}},
        },
    )

    with in_process(app, start="2026-03-28T12:00") as tasks:  # the clocks change in the night
        tasks.start_beat()
        tasks.advance("1d")

    mornings = [run.at for run in tasks.runs if run.result == 3]
    assert mornings == [datetime(2026, 3, 29, 4, 0, tzinfo=UTC)]
    assert {record.expires - record.eta if record.eta else None for record in tasks.submitted} == {None}
    often = [record for record in tasks.submitted if record.args == (3, 4)]
    assert [record.expires.astimezone(UTC).strftime("%d %H:%M:%S") for record in often if record.expires] == [
        "28 18:01:00", "29 00:01:00", "29 06:01:00", "29 12:01:00",
    ]  # fmt: skip


def test_a_naive_eta_means_the_same_as_on_a_node() -> None:
    app, add, _ = app_with(timezone="Europe/Berlin")

    with in_process(app, start="2026-03-01T12:00") as tasks:
        add.apply_async((1, 2), eta=datetime(2026, 3, 1, 13, 0))  # noqa: DTZ001 - naive on purpose
        assert tasks.submitted[0].eta == datetime(2026, 3, 1, 13, 0, tzinfo=UTC)


def test_threads_of_the_code_under_test_submit_to_the_app() -> None:
    app, add, _ = app_with()

    with in_process(app) as tasks:
        threads = [threading.Thread(target=add.delay, args=(n, n)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(tasks.run_due()) == 20


def test_an_async_task_may_await_another_in_a_running_loop() -> None:
    app, add, _ = app_with()

    @app.task(shared=False, name="many.outer")
    async def outer(n: int) -> Any:
        result = await add.adelay(n, n)
        return await result.aget()

    async def test() -> Any:
        result = await outer.adelay(4)
        assert (await group(outer.s(1), outer.s(2)).apply_async().aget()) == [2, 4]
        return await result.aget()

    with in_process(app) as tasks:
        assert asyncio.run(test()) == 8
        assert outer.delay(5).get() == 10
        assert {run.state for run in tasks.runs} == {"SUCCESS"}


def test_context_variables_do_not_travel() -> None:
    from contextvars import ContextVar

    variable: ContextVar[str] = ContextVar("variable", default="unset")
    app = Celery("variables", set_as_current=False)

    @app.task(shared=False, name="variables.read")
    def read() -> str:
        return variable.get()

    with in_process(app):
        variable.set("of the test")
        assert read.delay().get() == "unset"


def test_two_apps_do_not_meet() -> None:
    one, add, _ = app_with()
    two, other, _ = app_with()

    with in_process(one) as tasks, in_process(two) as others:
        add.delay(1, 1)
        other.delay(2, 2)
        assert (tasks.submitted, others.submitted) == ([call("many.add", 1, 1)], [call("many.add", 2, 2)])
        assert [run.result for run in others.run_due()] == [4]
        assert [run.result for run in tasks.run_due()] == [2]


def test_a_stock_app_is_refused() -> None:
    import celery

    from taskapp.errors.testing import NoAppToTest

    with (
        pytest.raises(NoAppToTest, match=r"is no taskapp\.Celery"),
        in_process(celery.Celery("stock", set_as_current=False)),
    ):
        pass


class Plain(StockTask):  # type: ignore[type-arg]
    name = "plain.run"

    def run(self, x: int) -> int:
        return x


def test_a_stock_task_class_with_options() -> None:
    app = Celery("plain", set_as_current=False)
    task = app.register_task(Plain(), ignore_result=False)

    with in_process(app) as tasks:
        assert task.apply_async((3,), shadow="other name").get() == 3
        assert tasks.submitted[0].options["shadow"] == "other name"
