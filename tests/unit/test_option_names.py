"""Misspelt options of a submit: refused on every path, where somebody can correct them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import celery
import kombu
import pytest
from celery import chain, group
from celery.app.task import Context
from hypothesis import given
from hypothesis import strategies as st

from taskapp import Celery
from taskapp.celery import app as shipped
from taskapp.client.option_names import OF_RETRIES, OPTIONS
from taskapp.client.option_types import SubmitOptions
from taskapp.engine.headers import PROPERTIES
from taskapp.errors import SubmitInterrupted
from taskapp.errors.tasks import UnknownOption
from taskapp.outbox.capture import capture
from taskapp.tasks import add
from taskapp.testing import in_process


def parameters(function: Callable[..., Any]) -> set[str]:
    found = inspect.signature(function).parameters.values()
    return {each.name for each in found if each.kind is each.POSITIONAL_OR_KEYWORD} - {"self", "args", "kwargs"}


def test_every_option_that_celery_and_kombu_read_is_known() -> None:
    app = celery.Celery("x", set_as_current=False)
    message = {"task_id", "name", "create_sent_event", "now", "timezone"}  # set by Celery for each message
    read = (
        parameters(celery.Celery.send_task) | parameters(celery.Task.apply_async) | parameters(celery.Task.apply)
        | (parameters(app.amqp.as_task_v2) - message) | parameters(kombu.Producer.publish) | PROPERTIES.keys()
        | (parameters(app.amqp.send_task_message) - {"message", "event_dispatcher"})
        | SubmitOptions.__annotations__.keys() | Context({}).as_execution_options().keys()
    )  # fmt: skip

    assert read - OPTIONS == {"body", "name"}
    assert parameters(celery.Task.retry) - OPTIONS <= OF_RETRIES | {"exc"}


@pytest.fixture
def app() -> Celery:
    return Celery("proj", broker="redis://127.0.0.1:1/0", set_as_current=False)


@pytest.fixture
def pay(app: Celery) -> Any:
    @app.task(name="shop.pay", shared=False)
    def pay(*_: Any) -> None: ...

    return pay


REFUSED = UnknownOption, SubmitInterrupted
WAYS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "apply_async": lambda task, options: task.apply_async((1,), **options),
    "apply": lambda task, options: task.apply((1,), **options),
    "send_task": lambda task, options: task.app.send_task(task.name, (1,), **options),
    "send_task of a type that is not registered": lambda task, options: task.app.send_task("x.y", (1,), **options),
    "submit_many": lambda task, options: task.submit_many([(1,)], **options),
    "signature": lambda task, options: task.signature((1,), **options),
    "set": lambda task, options: task.s(1).set(**options),
    "apply_async of a signature": lambda task, options: task.s(1).apply_async(**options),
    "step of a chain": lambda task, options: chain(task.si(1), task.si(2).set(**options)),
    "member of a group": lambda task, options: group([task.si(n).set(**options) for n in range(2)]),
    "retry": lambda task, options: task.retry(**options),
    "outbox": lambda task, options: capture(task, (1,), {}, options, None),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_misspelt_option_is_refused_on_every_path(pay: Any, way: str) -> None:
    with in_process(pay.app), pytest.raises(REFUSED, match=r"no option 'countdwn'; did you mean 'countdown'\?"):
        WAYS[way](pay, {"countdwn": 5})


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("retry", "apply")])
def test_an_option_of_the_project_that_resembles_none_is_passed_on(pay: Any, way: str) -> None:
    with in_process(pay.app):
        WAYS[way](pay, {"tenant": "acme", "MessageGroupId": "a"})


def test_the_app_that_ships_accepts_no_other_options() -> None:
    with in_process(shipped):
        with pytest.raises(UnknownOption, match="no option 'z'; pass arguments of the task in args or kwargs"):
            add.apply_async((1, 2), z=3)
        with pytest.raises(TypeError, match="did you mean 'expires'"):
            add.apply_async((1, 2), expire=5)
        assert add.apply_async((1, 2), expires=5).get() == 3


def test_a_stamp_may_resemble_an_option(pay: Any) -> None:
    with in_process(pay.app) as tasks:
        stamped = pay.s(1)
        stamped.stamp(user="acme", header="x")
        stamped.apply_async()
        [run] = tasks.run_due()
        assert run.state == "SUCCESS"


def test_what_follows_a_task_keeps_the_options_of_its_message(pay: Any) -> None:
    """Nobody could correct them, and the task before has ended."""
    with in_process(pay.app) as tasks:
        step = pay.si(2)
        step.options["expire"] = 5
        pay.apply_async((1,), link=step)
        assert [run.state for run in tasks.run_due()] == ["SUCCESS"] * 2


def test_a_misspelt_route_is_refused(app: Celery, pay: Any) -> None:
    app.conf.task_routes = {"shop.*": {"quue": "slow"}}
    with in_process(app), pytest.raises(UnknownOption, match="did you mean 'queue'"):
        pay.delay(1)


@given(option=st.sampled_from(sorted(OPTIONS)), data=st.data())
def test_a_typing_error_in_any_long_option_is_refused(option: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(option) - 1))
    letter = data.draw(st.sampled_from("aeoxy_"))
    kind = data.draw(st.sampled_from(["missing", "added", "other"]))
    misspelt = option[:at] + ("" if kind == "missing" else letter) + option[at + (kind != "added") :]
    app = Celery("typos", broker="redis://127.0.0.1:1/0", set_as_current=False)
    if misspelt in OPTIONS or len(misspelt) < 7:
        return
    with pytest.raises(UnknownOption, match="did you mean"):
        app.send_task("shop.pay", **{misspelt: 1})
