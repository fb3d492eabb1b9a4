"""The limits in the messages of tasks, on every way by which a task is submitted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from celery import Task as StockTask
from celery import chain, chord, group, signals
from pydantic import BaseModel

from taskapp import Celery, Task
from taskapp.app.chord_task import FINISH_CHORD
from taskapp.client.limits.limiter import SEPARATOR
from taskapp.engine.envelope import limits_in, unseal
from taskapp.engine.limits import Concurrency, Limits, Rate, Unique
from taskapp.engine.producer import Message
from taskapp.errors import InvalidPayload, TaskappError
from taskapp.errors.history import UnknownTaskOption
from taskapp.errors.limits import BadLimit, BadLimitKey, LimitNeedsRedis
from taskapp.errors.tasks import UnknownOption
from taskapp.outbox.capture import capture
from taskapp.outbox.pushing import RowPusher
from taskapp.schedules.messages import made
from taskapp.testing import in_process
from taskapp.testing.engine import MemoryEngine
from taskapp.transport.codec import edit_arguments, unpack
from taskapp.transport.limits_header import LIMITS_HEADER, in_header

Found = list[tuple[str, Limits | None]]


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Every message that is queued."""
    messages: list[Message] = []
    push = MemoryEngine.push

    def record(self: MemoryEngine, given: Sequence[Message]) -> None:
        messages.extend(given)
        push(self, given)

    monkeypatch.setattr(MemoryEngine, "push", record)
    return messages


@pytest.fixture
def app(pushed: list[Message]) -> Iterator[Celery]:
    app = Celery("limited", set_as_current=False, broker="redis://never.invalid")
    with in_process(app):
        yield app


def limits_of(message: Message) -> Limits | None:
    packed = limits_in(message.blob)
    assert bool(packed) == message.is_limited
    assert in_header(unpack(unseal(message.blob))["headers"].get(LIMITS_HEADER, "")) == packed
    return msgspec.msgpack.decode(packed, type=Limits) if packed else None


def found(pushed: list[Message]) -> Found:
    return [(unseal(message.blob).task, limits_of(message)) for message in pushed]


FAIR = Limits("acme")


def fair(app: Celery, **options: Any) -> Any:
    @app.task(name="limited.fair", shared=False, fair_key="{tenant}", **options)
    def run(tenant: str, order: int = 0) -> str:
        return tenant

    return run


# --- each way of submitting -------------------------------------------------------------------------


def by_many(task: Any) -> None:
    task.submit_many([("acme",), {"tenant": "acme"}])


def by_many_with_options(task: Any) -> None:
    task.submit_many([("acme",)], countdown=5)


def by_coroutine(task: Any) -> None:
    asyncio.run(task.adelay("acme"))


def by_many_in_a_coroutine(task: Any) -> None:
    asyncio.run(task.asubmit_many([("acme",)]))


def by_name(task: Any) -> None:
    task.app.send_task(task.name, ("acme",))


def by_group(task: Any) -> None:
    group(task.s("acme") for _ in range(2))()


def by_group_with_options(task: Any) -> None:
    group(task.s("acme").set(countdown=1) for _ in range(2)).apply_async()


def by_signals(task: Any) -> None:
    def look(headers: Any = None, **_: Any) -> None:
        headers["seen"] = True

    signals.before_task_publish.connect(look)
    try:
        task.delay("acme")
    finally:
        signals.before_task_publish.disconnect(look)


def by_kombu(task: Any) -> None:
    task.apply_async(("acme",), exchange="celery", routing_key="celery")


WAYS = {
    "delay": lambda task: task.delay("acme"),
    "delay by name of the argument": lambda task: task.delay(tenant="acme"),
    "apply_async": lambda task: task.apply_async(("acme",), countdown=60),
    "a serializer": lambda task: task.apply_async(("acme",), serializer="yaml"),
    "a compression": lambda task: task.apply_async(("acme",), compression="gzip"),
    "headers": lambda task: task.apply_async(("acme",), headers={"trace": "x"}),
    "a signature": lambda task: task.s("acme").apply_async(),
    "many": by_many, "many with options": by_many_with_options, "a coroutine": by_coroutine,
    "many in a coroutine": by_many_in_a_coroutine, "the name": by_name, "a group": by_group,
    "a group with options": by_group_with_options, "signal handlers": by_signals, "kombu": by_kombu,
    "a chain": lambda task: chain(task.si("acme"), task.si("acme"))(),
    "an old message format": lambda task: task.apply_async(("acme",), retries=1),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_task_has_its_limits_however_it_is_submitted(way: Callable[[Any], None], app: Celery, pushed: Any) -> None:
    way(fair(app))

    assert pushed
    assert all(one == ("limited.fair", FAIR) for one in found(pushed))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_task_without_limits_has_the_message_it_had(way: Callable[[Any], None], app: Celery, pushed: Any) -> None:
    @app.task(name="limited.plain", shared=False)
    def plain(tenant: str) -> None: ...

    way(plain)

    assert pushed
    assert all(one == ("limited.plain", None) for one in found(pushed))
    assert all(message.blob[0] == 1 for message in pushed)


def test_steps_of_a_chain_and_a_chord_have_limits_of_their_own(app: Celery, pushed: list[Message]) -> None:
    task = fair(app)

    @app.task(name="limited.total", shared=False, unique_key="{values[0]}")
    def total(values: list[str]) -> str:
        return values[0]

    with in_process(app) as tasks:
        chain(chord([task.s("acme"), task.s("other")], total.s()), task.s())()
        tasks.run_due()

    assert [one for one in found(pushed) if one[0].startswith("limited.")] == [
        ("limited.fair", FAIR), ("limited.fair", Limits("other")),
        ("limited.total", Limits(unique=Unique(f"limited.total{SEPARATOR}acme"))), ("limited.fair", FAIR),
    ]  # fmt: skip


def test_a_task_in_the_outbox_keeps_the_limits_of_its_call(app: Celery, pushed: list[Message]) -> None:
    task = fair(app)
    for options in ({}, {"fair_key": "other"}):
        assert RowPusher(app).push(capture(task, ("acme",), {}, options, app).rows).pushed

    assert found(pushed) == [("limited.fair", FAIR), ("limited.fair", Limits("other"))]


def test_a_tick_has_the_limits_of_its_task_type(app: Celery) -> None:
    class Tick:
        name, task = "hourly", "limited.fair"

    fair(app)
    [message] = made(app, Tick, 0, "tick-1", (("acme",), {}, {}))  # type: ignore[arg-type]  # these fields are enough

    assert limits_of(message) == FAIR


# --- retries ----------------------------------------------------------------------------------------


def test_a_retry_keeps_the_limits_of_its_first_run(app: Celery, pushed: list[Message]) -> None:
    @app.task(name="limited.again", shared=False, bind=True, fair_key="{tenant}", max_retries=2, default_retry_delay=0)
    def again(self: Task, tenant: str, headers: Any = None) -> Any:
        if self.request.retries < 2:
            raise self.retry(args=("elsewhere",), headers=headers)
        return self.request.headers

    with in_process(app) as tasks:
        results = [
            again.apply_async(("acme",), {}, unique_key="one"),
            again.apply_async(("acme", {"trace": 1})),
            again.delay("acme"),
        ]
        tasks.run_due()
        assert [result.get() for result in results] == [None, {"trace": 1}, None]

    unique = Unique(f"limited.again{SEPARATOR}one")
    firsts = [message for message in pushed if message.id == results[0].id]
    assert [limits_of(message) for message in firsts] == [Limits("acme", unique=unique)] * 3
    assert [limits_of(message) for message in pushed if message.id != results[0].id] == [FAIR] * 6


def test_a_retry_of_a_task_that_came_without_limits_has_none(app: Celery, pushed: list[Message]) -> None:
    @app.task(name="limited.unique", shared=False, bind=True, unique=True, max_retries=1, default_retry_delay=0)
    def once(self: Task) -> None:
        if not self.request.retries:
            raise self.retry()

    with in_process(app) as tasks:
        once.apply_async(unique=False)
        tasks.run_due()

    assert found(pushed) == [("limited.unique", None)] * 2


def test_a_retry_cannot_change_limits(app: Celery) -> None:
    @app.task(name="limited.changing", shared=False, bind=True, max_retries=1)
    def changing(self: Task) -> None:
        raise self.retry(fair_key="other")

    with in_process(app) as tasks:
        result = changing.delay()
        tasks.run_due(keep_failures=True)
        with pytest.raises(BadLimit, match="fair_key='other': a retry keeps the limits of its first run; remove it"):
            result.get()


def test_a_follow_up_that_passes_its_parents_headers_on_has_limits_of_its_own(
    app: Celery, pushed: list[Message]
) -> None:
    @app.task(name="limited.plain", shared=False)
    def plain() -> None: ...

    @app.task(name="limited.parent", shared=False, bind=True, fair_key="{tenant}")
    def parent(self: Task, tenant: str) -> None:
        plain.apply_async(headers=self.request.headers)

    with in_process(app) as tasks:
        parent.apply_async(("acme",), headers={"trace": 1})
        tasks.run_due()

    assert found(pushed) == [("limited.parent", FAIR), ("limited.plain", None)]


def test_editing_the_arguments_of_a_message_keeps_its_limits(app: Celery, pushed: list[Message]) -> None:
    fair(app).delay("acme")

    assert limits_in(edit_arguments(pushed[0].blob, ["other"], None)) == limits_in(pushed[0].blob)


# --- options of one call ----------------------------------------------------------------------------


def test_a_call_changes_the_limits(app: Celery, pushed: list[Message]) -> None:
    task = fair(app, rate_limit="60/m", max_concurrency=3)

    task.apply_async(("acme",), fair_key="f", rate_key="r", rate_cost=2, concurrency_key="c")
    task.s("acme").set(fair_key="g").apply_async()
    task.submit_many([("acme",)], unique_key="u")
    app.send_task("limited.elsewhere", fair_key="h")

    rate, slots = Rate("limited.fair", "", 60, 60_000, 1), Concurrency("limited.fair", "", 3)
    assert [limits for _, limits in found(pushed)] == [
        Limits("f", (rate._replace(key="r", cost=2),), (slots._replace(key="c"),)),
        Limits("g", (rate,), (slots,)),
        Limits("acme", (rate,), (slots,), Unique(f"limited.fair{SEPARATOR}u")),
        Limits("h"),
    ]


REFUSED: dict[str, tuple[dict[str, Any], type[TaskappError], str]] = {
    "a number of the type": ({"rate_limit": "5/s"}, BadLimit, "taskapp limits set limited.fair --rate NUMBER"),
    "a misspelt name": ({"unique_keys": "x"}, UnknownOption, "did you mean 'unique_key'"),
    "a template": ({"fair_key": "{tenant}"}, BadLimitKey, "is a template"),
    "a long key": ({"fair_key": "x" * 300}, BadLimitKey, "more than 256"),
    "no effect": ({"rate_cost": 5}, BadLimit, "no effect without rate_limit"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("way", ["apply_async", "submit_many", "send_task", "set", "signature", "by_kombu"])
def test_a_wrong_option_of_a_call_is_refused_at_the_caller(way: str, case: Any, app: Celery, pushed: Any) -> None:
    options, error, problem = case
    task = fair(app)
    ways: dict[str, Callable[[], Any]] = {
        "apply_async": lambda: task.apply_async(("acme",), **options),
        "submit_many": lambda: task.submit_many([("acme",)], **options),
        "send_task": lambda: app.send_task("limited.fair", ("acme",), **options),
        "set": lambda: task.s("acme").set(**options).apply_async(),
        "signature": lambda: task.signature(("acme",), options=options).apply_async(),
        "by_kombu": lambda: task.apply_async(("acme",), exchange="celery", routing_key="celery", **options),
    }

    with pytest.raises(TaskappError) as caught:
        ways[way]()

    cause = caught.value.__cause__ if way == "submit_many" else caught.value
    assert isinstance(cause, error)
    assert problem in str(cause)
    assert pushed == []


def test_wrong_names_are_refused_where_a_signature_is_made(app: Celery) -> None:
    task = fair(app)

    for options in ({"fair_keys": "x"}, {"max_concurrency": 3}):
        with pytest.raises((UnknownOption, BadLimit)):
            task.s("acme").set(**options)
        with pytest.raises((UnknownOption, BadLimit)):
            task.signature(("acme",), options=options)


def test_arguments_that_make_no_key_are_refused_at_the_caller(app: Celery, pushed: list[Message]) -> None:
    task = fair(app)

    with pytest.raises(BadLimitKey, match=r"fair_key: '\{tenant\}' becomes a key of 300 bytes"):
        task.delay("x" * 300)
    with pytest.raises(InvalidPayload):
        group(task.s({"id": 1}) for _ in range(2))()
    assert pushed == []


# --- declaration ------------------------------------------------------------------------------------


def declare(function: Callable[..., Any], **options: Any) -> Any:
    app = Celery("limited", set_as_current=False, broker=options.pop("broker", "redis://never.invalid"))
    app.task(name="limited.one", shared=False, **options)(function)
    return app.tasks["limited.one"]


def pay(tenant: str, order: int = 0) -> None: ...


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"fair_key": "{tenat}"}, r"did you mean '\{tenant\}'"),
        ({"max_concurrency": 0}, "a number of tasks from 1"),
        ({"rate_limit": "5/x"}, "is not a unit of time"),
        ({"rate_limit": 0}, "above zero"),
        ({"on_duplicate": "raise"}, "no effect without unique"),
    ],
)
def test_an_app_with_wrong_limits_cannot_be_put_together(options: Any, problem: str) -> None:
    for _ in range(2):
        with pytest.raises(BadLimit, match=f"task 'limited.one' cannot have .*{problem}"):
            declare(pay, **options)


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("uniqe", "unique"), ("unique_keys", "unique_key"), ("fairkey", "fair_key"),
        ("max_concurency", "max_concurrency"),
        ("rate_costs", "rate_cost"), ("on_duplicat", "on_duplicate"), ("debounced", "debounce"),
    ],
)  # fmt: skip
def test_a_misspelt_option_is_refused_with_the_right_one(option: str, meant: str) -> None:
    with pytest.raises(UnknownTaskOption, match=f"unknown option '{option}'; did you mean '{meant}'"):
        declare(pay, **{option: 1})


def test_annotations_and_defaults_of_the_project_count() -> None:
    app = Celery("limited", set_as_current=False, broker="redis://never.invalid")
    app.conf.task_annotations = {"limited.one": {"max_concurrency": 2, "fair_key": "{tenant}"}}
    app.conf.task_default_rate_limit = "7/s"
    app.task(name="limited.one", shared=False)(pay)

    task = app.tasks["limited.one"]

    assert task.declared_limits.limiter.limits(("acme",), {}) == Limits(
        "acme", (Rate("limited.one", "", 7, 1_000, 1),), (Concurrency("limited.one", "", 2),)
    )
    assert app.tasks[FINISH_CHORD].declared_limits is None


def test_a_wrong_annotation_is_refused_too() -> None:
    app = Celery("limited", set_as_current=False, broker="redis://never.invalid")
    app.conf.task_annotations = {"limited.one": {"fair_key": "{tenat}"}}
    app.task(name="limited.one", shared=False)(pay)

    with pytest.raises(BadLimit, match="did you mean"):
        _ = app.tasks


class Order(BaseModel):
    id: int
    tenant: str


def test_templates_read_what_is_in_the_message(app: Celery, pushed: list[Message]) -> None:
    @app.task(name="limited.model", shared=False, fair_key="{order.tenant}", unique_key="{order.id}", bind=True)
    def model(self: Task, order: Order) -> None: ...

    model.delay(Order(id=1, tenant="acme"))
    model.delay({"id": "1", "tenant": "acme"})

    assert found(pushed) == [("limited.model", Limits("acme", unique=Unique(f"limited.model{SEPARATOR}1")))] * 2


def test_class_based_and_foreign_tasks_declare_limits_as_attributes(app: Celery, pushed: list[Message]) -> None:
    class Ours(Task):
        name = "limited.ours"
        fair_key = "{tenant}"

        def run(self, tenant: str) -> None: ...

    class Stock(StockTask):  # type: ignore[type-arg]  # Celery's own class has no parameters
        name = "limited.stock"
        fair_key = "{tenant}"

        def run(self, tenant: str) -> None: ...

    class Base(Task):
        abstract = True
        fair_key = "{tenant}"

    app.register_task(Ours)
    app.register_task(Stock)
    app.task(name="limited.based", shared=False, base=Base)(pay)
    for name in ("limited.ours", "limited.stock", "limited.based"):
        app.tasks[name].delay("acme")

    assert found(pushed) == [("limited.ours", FAIR), ("limited.stock", FAIR), ("limited.based", FAIR)]


# --- other brokers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "call", "option"),
    [
        ({"unique": True}, {}, "unique"), ({"max_concurrency": 1}, {}, "max_concurrency"),
        ({"fair_key": "{tenant}"}, {}, "fair_key"), ({"rate_limit": 1, "rate_scope": "cluster"}, {}, "rate_scope"),
        ({"rate_limit": 1, "rate_key": "{tenant}"}, {}, "rate_key"),
        ({"rate_limit": 1, "rate_cost": 2}, {}, "rate_cost"),
        ({}, {"fair_key": "x"}, "fair_key"), ({}, {"unique_key": "x"}, "unique_key"),
        ({"rate_limit": 1}, {"rate_key": "x"}, "rate_key"), ({"rate_limit": 1}, {"rate_cost": 3}, "rate_cost"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("broker", ["amqp://never.invalid", "memory://"])
def test_a_limit_that_the_broker_cannot_keep_is_refused_by_name(
    options: Any, call: Any, option: str, broker: str
) -> None:
    task = declare(pay, broker=broker, **options)

    with pytest.raises(LimitNeedsRedis, match=f"task 'limited.one' cannot have the option '{option}': it needs Redis"):
        task.apply_async(("acme",), **call)


def test_the_rate_limit_of_celery_needs_no_redis() -> None:
    for options in ({"rate_limit": "5/s"}, {"rate_limit": "5/s", "rate_scope": "node"}):
        task = declare(pay, broker="memory://", **options)
        task.delay("acme")
