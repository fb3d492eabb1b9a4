"""Our runner does what Celery's tracer does: the same calls, in the same order, with the same arguments."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery, _state, group, signals
from celery.app.trace import build_tracer
from celery.backends.base import BaseBackend
from celery.exceptions import BackendGetMetaError, Ignore, Reject, SoftTimeLimitExceeded
from celery.worker.state import successful_requests
from kombu.exceptions import EncodeError, OperationalError

from taskapp.app.task import Task
from taskapp.execution import note_writer
from taskapp.worker.run.tracer import Runner

Calls = list[tuple[Any, ...]]
HOOKS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")
SIGNALS = ("task_prerun", "task_postrun", "task_success", "task_failure", "task_retry", "task_internal_error")

calls: Calls = []
raising: dict[str, BaseException] = {}
"""What the named hook, receiver or part of the backend raises, after it was recorded."""
stored: dict[str, Any] = {}
"""What the backend says of every task: its meta, or an error."""


def plain(value: Any) -> Any:
    """What is the same in two runs."""
    if isinstance(value, BaseException):
        return repr(value)
    if isinstance(value, ExceptionInfo):
        return "einfo", plain(value.exception), value.internal
    if isinstance(value, float):
        return "seconds"
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if type(value).__name__ in ("Context", "RunContext"):
        return "request", value.id, value.headers
    return value if isinstance(value, str | int | bool | type(None)) else type(value).__name__


def record(name: str, *args: Any, **kwargs: Any) -> None:
    calls.append((name, plain(args), plain({key: kwargs[key] for key in sorted(kwargs)})))
    if name in raising:
        raise raising[name]


class Recorder(BaseBackend):
    """A result backend that writes down what it is asked for."""

    persistent = True

    def store_result(self, *args: Any, **kwargs: Any) -> None:
        record("store_result", *(args if args[2] != "STARTED" else (args[0], args[2])))

    def mark_as_done(self, task_id: str, result: Any, *args: Any, **kwargs: Any) -> None:
        record("mark_as_done", task_id, result, *args, **kwargs)
        if type(result) is object:
            raise EncodeError("an object")

    def mark_as_failure(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("traceback", None)
        record("mark_as_failure", args[0], args[1], **kwargs)

    def mark_as_retry(self, *args: Any, **kwargs: Any) -> None:
        record("mark_as_retry", args[0], args[1], **kwargs)

    def process_cleanup(self) -> None:
        record("process_cleanup")

    def get_task_meta(self, *_: Any, **__: Any) -> Any:
        if "error" in stored:
            raise stored["error"]
        return dict(stored or {"status": "PENDING", "result": None})

    def get_state(self, *_: Any) -> Any:
        return self.get_task_meta()["status"]


class Watched(Task):
    """Records its hooks."""

    abstract = True


for _hook in HOOKS:
    setattr(Watched, _hook, lambda self, *args, _hook=_hook: record(_hook, *args))


@dataclass(frozen=True)
class Case:
    """One run."""

    end: str = "success"
    """What the body does."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the task type."""
    request: dict[str, Any] = field(default_factory=dict)
    conf: dict[str, Any] = field(default_factory=dict)
    raising: dict[str, BaseException] = field(default_factory=dict)
    stored: dict[str, Any] = field(default_factory=dict)
    kwargs: Any = field(default_factory=lambda: {"word": "w"})
    runs: int = 1


def sig(name: str, **options: Any) -> dict[str, Any]:
    return {"task": name, "args": (), "kwargs": {}, "options": options, "subtask_type": None, "immutable": False}


GROUP = dict(group([], app=Celery("none", set_as_current=False)), kwargs={"tasks": [sig("g1"), sig("g2")]})
REDELIVERED = {"delivery_info": {"redelivered": True, "priority": 3}}
DEDUP = {"task_acks_late": True, "worker_deduplicate_successful_tasks": True}
DONE = {"status": "SUCCESS", "result": 7}

CASES = {
    "success": Case(),
    "nothing": Case("nothing"),
    "failure": Case("failure"),
    "expected failure": Case("failure", {"throws": (ValueError,)}),
    "retry": Case("retry"),
    "retry without an error": Case("bare retry"),
    "retries exhausted": Case("retry", request={"retries": 3}),
    "ignore": Case("ignore"),
    "reject": Case("reject"),
    "reject and requeue": Case("requeue"),
    "soft limit": Case("soft limit"),
    "group of errors": Case("group"),
    "without hooks": Case(options={"base": Task}),
    "failure without hooks": Case("failure", options={"base": Task}),
    "ignored result": Case(options={"ignore_result": True}),
    "ignored failure": Case("failure", options={"ignore_result": True}),
    "ignored retry": Case("retry", options={"ignore_result": True}),
    "ignored failure, stored": Case("failure", options={"ignore_result": True, "store_errors_even_if_ignored": True}),
    "ignored by the call": Case(request={"ignore_result": True}),
    "not ignored by the call": Case(options={"ignore_result": True}, request={"ignore_result": False}),
    "started": Case(options={"track_started": True}),
    "started, ignored": Case(options={"track_started": True, "ignore_result": True}),
    "shadow": Case("failure", request={"shadow": "another.name"}),
    "custom headers": Case(request={"tenant": "x", "lang": "py", "task": "case"}),
    "cannot be encoded": Case("object"),
    "long result": Case("long"),
    "before_start fails": Case(raising={"before_start": ValueError("hook")}),
    "before_start ignores": Case(raising={"before_start": Ignore("hook")}),
    "before_start rejects": Case(raising={"before_start": Reject("hook", requeue=True)}),
    "on_success fails": Case(raising={"on_success": ValueError("hook")}),
    "on_success rejects": Case(raising={"on_success": Reject("hook")}),
    "after_return fails": Case(raising={"after_return": ValueError("hook")}),
    "after_return fails after a failure": Case("failure", raising={"after_return": ValueError("hook")}),
    "after_return rejects": Case(raising={"after_return": Reject("hook")}),
    "a receiver fails": Case(raising={"task_prerun": ValueError("receiver"), "task_postrun": ValueError("receiver")}),
    "the backend fails": Case(raising={"mark_as_done": OSError("gone")}),
    "the broker fails in the backend": Case(raising={"mark_as_done": OperationalError("gone")}),
    "the backend fails after a failure": Case("failure", raising={"mark_as_failure": OSError("gone")}),
    "cleanup fails": Case(raising={"process_cleanup": ValueError("cleanup")}),
    "the loader fails": Case(raising={"on_task_init": ValueError("loader")}),
    "a link": Case(request={"callbacks": [sig("one")]}),
    "two links": Case(request={"callbacks": [sig("one"), sig("two")]}),
    "links and groups": Case(request={"callbacks": [sig("one"), GROUP, sig("two")]}),
    "one group": Case(request={"callbacks": [GROUP]}),
    "two groups": Case(request={"callbacks": [GROUP, GROUP]}),
    "a chain": Case(request={"chain": [sig("last"), sig("next")]}),
    "a link and a chain": Case(request={"callbacks": [sig("one")], "chain": [sig("next")], "root_id": "root"}),
    "inherited priority": Case(request={"chain": [sig("next")]}, conf={"task_inherit_parent_priority": True}),
    "no links after a failure": Case("failure", request={"callbacks": [sig("one")], "chain": [sig("next")]}),
    "a link that cannot be sent": Case(
        request={"callbacks": [sig("one")]}, raising={"publish": OperationalError("gone")}
    ),
    "a link that is broken": Case(request={"callbacks": [sig("one")]}, raising={"publish": ValueError("broken")}),
    "redelivered": Case(conf=DEDUP, request=REDELIVERED),
    "redelivered after success": Case(conf=DEDUP, request=REDELIVERED, stored=DONE),
    "redelivered after success, twice": Case(conf=DEDUP, request=REDELIVERED, stored=DONE, runs=2),
    "redelivered after success without its links": Case(
        conf=DEDUP, request={**REDELIVERED, "callbacks": [sig("one")], "chain": [sig("next")]}, stored=DONE
    ),
    "redelivered after success with its links": Case(
        conf=DEDUP, request={**REDELIVERED, "callbacks": [sig("one")]},
        stored={**DONE, "children": [[["child", None], None]]},
    ),
    "redelivered, links cannot be sent": Case(
        conf=DEDUP, request={**REDELIVERED, "callbacks": [sig("one")]}, stored=DONE,
        raising={"publish": OperationalError("gone")},
    ),
    "redelivered, nobody knows": Case(
        conf=DEDUP, request=REDELIVERED, stored={"error": BackendGetMetaError("gone")}
    ),
    "redelivered, early acknowledged": Case(conf={**DEDUP, "task_acks_late": False}, request=REDELIVERED, stored=DONE),
}  # fmt: skip


class Body:
    """What the tasks do."""

    def __call__(self, task: Any, end: str) -> Any:
        record("body", task.request.id, _state.current_task.name)
        if end in ("failure", "soft limit"):
            raise {"failure": ValueError("failed"), "soft limit": SoftTimeLimitExceeded(1.0)}[end]
        if end == "group":
            raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])
        if end == "retry":
            raise task.retry(exc=ValueError("again"), countdown=5)
        if end == "bare retry":
            raise task.retry(countdown=5)
        if end == "ignore":
            raise Ignore("ignored")
        if end in ("reject", "requeue"):
            raise Reject("rejected", requeue=end == "requeue")
        return {"nothing": None, "object": object(), "long": "x" * 5_000}.get(end, 42)


body = Body()


def function(self: Any, end: str, word: str = "") -> Any:
    return body(self, end)


async def coroutine(self: Any, end: str, word: str = "") -> Any:
    await asyncio.sleep(0)
    return body(self, end)


coroutine.__name__ = function.__name__  # the names of their classes


class Job:
    """What a pool is to a run."""

    is_stopped = False

    def is_current(self) -> bool:
        return True

    def awaitable(self, coroutine: Any) -> Any:
        return coroutine


Driver = Callable[[Any, Any, str, Any, Any, Any], Any]


def by_celery(task: Any, app: Any, task_id: str, args: Any, kwargs: Any, request: Any) -> Any:
    tracer = build_tracer(task.name, task, app=app, hostname="host")
    retval, info, seconds, text = tracer(task_id, args, kwargs, {**request, "args": args, "kwargs": kwargs})
    return (1, retval, seconds) if info else (0, text, seconds)


def by_us(task: Any, app: Any, task_id: str, args: Any, kwargs: Any, request: Any) -> Any:
    return Runner(task, app, "host").run(task_id, args, kwargs, {**request, "args": args, "kwargs": kwargs})


def by_us_on_a_loop(task: Any, app: Any, task_id: str, args: Any, kwargs: Any, request: Any) -> Any:
    given = {**request, "args": args, "kwargs": kwargs}
    return asyncio.run(Runner(task, app, "host").run_async(task_id, args, kwargs, given, Job()))


class Log(logging.Handler):
    """Records what is logged of a run."""

    def emit(self, message: logging.LogRecord) -> None:
        text = message.getMessage()
        if " succeeded in " in text:
            text = text.split(" in ")[0] + text.split("s: ", 1)[1]
        calls.append(
            ("log", message.levelname, text, message.exc_info is not None, sorted(vars(message).get("data", ())))
        )


@pytest.fixture(autouse=True)
def _no_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what runs say of themselves from a thread that would look for a server after the test."""
    monkeypatch.setattr(note_writer.note_writer, "value", SimpleNamespace(retry=lambda *_: None))


@pytest.fixture(autouse=True)
def _no_shared_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the many apps of this module without the task types that every app shares, which take most of the time."""
    monkeypatch.setattr(_state, "_on_app_finalizers", set())


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """Record logs and signals."""
    log, logger = Log(), logging.getLogger("celery.app.trace")
    level = logger.level
    logger.addHandler(log)
    logger.setLevel(logging.DEBUG)
    receivers = {}
    for name in SIGNALS:

        def receive(sender: Any, signal: Any = None, name: str = name, **fields: Any) -> None:
            fields.pop("traceback", None)
            record(name, sender.name, **fields)

        receivers[name] = receive
        getattr(signals, name).connect(receive, weak=False)
    yield
    for name, receive in receivers.items():
        getattr(signals, name).disconnect(receive)
    logger.removeHandler(log)
    logger.setLevel(level)


def play(case: Case, run: Driver, *, is_async: bool = False) -> tuple[Any, Calls]:
    """Run a case; return how it ended, and every call it made."""
    calls.clear()
    successful_requests.clear()
    raising.clear()
    stored.clear()
    app = Celery("conformance", broker="memory://", backend=f"{__name__}:Recorder", set_as_current=False)
    app.conf.update(case.conf)
    options = {"base": Watched, "name": "case", "bind": True, "shared": False, **case.options}
    task: Any = app.task(**options)(coroutine if is_async else function)
    app.finalize()
    app.submitter = SimpleNamespace(is_eager=False)
    task = app.tasks["case"]
    app.amqp._retry_publish = lambda publish, args, **how: record(
        "publish", type(publish.__self__).__name__, publish.__self__.task, args, **how
    )
    app.loader.on_task_init = lambda *args: record("on_task_init", args[0], args[1].name)
    app.loader.on_process_cleanup = lambda: record("on_process_cleanup")
    app.send_task = lambda name, *args, **how: record("send_task", name, args[0], how["retries"], how["countdown"])
    raising.update(case.raising)
    stored.update(case.stored)
    request = {"id": "the-id", "delivery_info": {"priority": 3}, **case.request}
    ended: list[Any] = []
    for _ in range(case.runs):
        try:
            ended.append(plain(run(task, app, "the-id", (case.end,), case.kwargs, dict(request))))
        except BaseException as error:  # noqa: BLE001 - compared
            ended.append(("raised", repr(error)))
    assert task.request_stack.top is None
    assert _state._task_stack.top is None
    return ended, list(calls)


@pytest.mark.filterwarnings("ignore:Exception raised outside body")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_run_makes_the_calls_celerys_tracer_makes(case: Case) -> None:
    expected = play(case, by_celery)

    assert expected[1], "a case that does nothing proves nothing"
    assert play(case, by_us) == expected
    assert play(case, by_us_on_a_loop, is_async=True) == expected
    assert play(case, by_us, is_async=True) == expected


@pytest.mark.filterwarnings("ignore:Exception raised outside body")
@pytest.mark.parametrize("run", [by_us, by_us_on_a_loop])
def test_a_message_whose_arguments_are_no_mapping_fails(run: Driver) -> None:
    """Celery's tracer counts it as done, with the result ``None``."""
    is_async = run is by_us_on_a_loop
    ((ended,), made) = play(Case(kwargs=["no mapping"]), run, is_async=is_async)

    assert ended[0] == 1
    assert [name for name, *_ in made] == ["task_internal_error"]


@pytest.mark.parametrize(
    "error", [ValueError("hook"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError("hook")], ids=repr
)
@pytest.mark.parametrize(("end", "hook"), [("failure", "on_failure"), ("retry", "on_retry")])
@pytest.mark.parametrize("run", [by_us, by_us_on_a_loop])
def test_a_hook_of_a_failure_that_raises_costs_itself_alone(
    run: Driver, end: str, hook: str, error: BaseException
) -> None:
    """With Celery its error is stored in the place of the task's own, and a task that runs again has failed."""
    is_async = run is by_us_on_a_loop
    ended, made = play(Case(end), run, is_async=is_async)

    ended_so, made_so = play(Case(end, raising={hook: error}), run, is_async=is_async)

    told = [call for call in made_so if call not in made]
    assert ended_so == ended
    assert [call for call in made_so if call not in told] == made
    assert told == [("log", "ERROR", f"Task case[the-id] {hook} handler raised: {error!r}", True, [])]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError("hook")], ids=repr)
@pytest.mark.parametrize("hook", ["on_success", "after_return"])
@pytest.mark.parametrize("run", [by_us, by_us_on_a_loop])
def test_a_hook_that_exits_or_finds_no_memory_after_a_success_changes_nothing(
    run: Driver, hook: str, error: BaseException
) -> None:
    is_async = run is by_us_on_a_loop

    ended, made = play(Case(raising={hook: error}), run, is_async=is_async)

    assert ended == [[0, "42", "seconds"]]
    assert ("log", "ERROR", f"Task case[the-id] {hook} handler raised: {error!r}", True, []) in made


def test_a_run_that_is_thrown_away_is_left_without_an_end() -> None:
    """A coroutine nobody awaits any more is closed; the task has raised nothing."""
    seen: list[str] = []

    class Dropped(Job):
        def is_current(self) -> bool:
            return False

    async def forever(self: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("closed")

    app = Celery("dropped", broker="memory://", backend=f"{__name__}:Recorder", set_as_current=False)
    task: Any = app.task(base=Watched, name="case", bind=True, shared=False)(forever)
    app.finalize()
    given = {"id": "the-id", "args": (), "kwargs": {}, "delivery_info": {}}
    calls.clear()
    running = Runner(app.tasks[task.name], app, "host").run_async("the-id", (), {}, given, Dropped())
    asyncio.run(_begin(running))
    running.close()

    assert seen == ["closed"]
    assert "mark_as_failure" not in [name for name, *_ in calls]


async def _begin(running: Any) -> None:
    running.send(None)


@pytest.mark.parametrize(
    ("run", "is_async"),
    [(by_us, False), (by_us, True), (by_us_on_a_loop, True)],
    ids=["def", "run to its end", "async"],
)
@pytest.mark.parametrize("end", ["success", "failure", "retry"])
def test_who_watches_the_calls_of_a_task_sees_its_error_once(
    run: Driver, is_async: bool, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Sentry's integration watches: something around ``__call__`` of the class."""
    seen: list[str] = []
    call = Task.__call__

    @functools.wraps(call)
    def watch(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            seen.append(repr(error))
            raise

    plainly = play(Case(end), run, is_async=is_async)
    monkeypatch.setattr(Watched, "__call__", watch, raising=False)

    assert play(Case(end), run, is_async=is_async) == plainly
    assert [error for error in seen if "Retry" not in error] == (["ValueError('failed')"] if end == "failure" else [])
