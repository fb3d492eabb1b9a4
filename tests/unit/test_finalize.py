"""An app that cannot be put together."""

from __future__ import annotations

import pytest

from taskapp.app.application import Celery
from taskapp.app.task import Task
from taskapp.celery import ShippedApp
from taskapp.errors.history import UnknownTaskOption
from taskapp.errors.tasks import BadOption


def test_it_says_why_each_time() -> None:
    app = Celery("shop", set_as_current=False, task_cls=Task)

    @app.task(name="shop.pay", shared=False, sensitve=True)
    def pay() -> None: ...

    for _ in range(2):
        with pytest.raises(UnknownTaskOption, match="sensitve"):
            app.tasks["shop.pay"]
    with pytest.raises(UnknownTaskOption):
        app.finalize()


def test_one_that_may_not_be_put_together_yet_may_be_later() -> None:
    app = Celery("shop", set_as_current=False, task_cls=Task, autofinalize=False)
    with pytest.raises(RuntimeError, match="not finalized"):
        _ = app.tasks

    app.finalize()
    assert "celery.chord" in app.tasks


def declare(app: Celery, **options: object) -> type[Task]:
    """Declare a task type with ``options`` and put the app together."""

    @app.task(name="shop.pay", shared=False, **options)  # type: ignore[call-overload, misc]  # unknown on purpose
    def pay() -> None: ...

    return type(app.tasks["shop.pay"])


@pytest.mark.parametrize(
    ("option", "meant"),
    [("singleton", ""), ("uniqe", "'unique'"), ("max_retires", "'max_retries'"), ("priorty", "'priority'")],
)
def test_the_app_that_ships_refuses_an_option_that_nobody_reads(option: str, meant: str) -> None:
    with pytest.raises(UnknownTaskOption, match=f"unknown option '{option}'.*{meant}"):
        declare(ShippedApp("shop", set_as_current=False), **{option: 1})


def test_a_project_may_have_options_of_its_own_that_resemble_none_of_taskapp() -> None:
    assert declare(Celery("shop", set_as_current=False), audience="staff").audience == "staff"
    with pytest.raises(UnknownTaskOption, match="did you mean 'cpu_bound'"):
        declare(Celery("shop", set_as_current=False), cpubound=True)


@pytest.mark.parametrize("app_class", [Celery, ShippedApp])
def test_an_option_that_a_base_class_declares_is_known(app_class: type[Celery]) -> None:
    class Audited(Task):
        abstract = True
        audience = "all"
        cpubound = False

    assert declare(app_class("shop", set_as_current=False), base=Audited, audience="staff", cpubound=True)


OF_CELERY = {
    "queue": "low", "priority": 3, "autoretry_for": (OSError,), "dont_autoretry_for": (), "retry_backoff": 2,
    "retry_backoff_max": 60, "retry_jitter": False, "retry_kwargs": {"max_retries": 2}, "max_retries": 3,
    "default_retry_delay": 5, "rate_limit": "9/s", "time_limit": 60, "soft_time_limit": 50, "ignore_result": True,
    "store_errors_even_if_ignored": True, "serializer": "json", "compression": None, "acks_late": True,
    "reject_on_worker_lost": True, "acks_on_failure_or_timeout": True, "track_started": True, "expires": 60,
    "throws": (KeyError,), "trail": False, "resultrepr_maxsize": 10, "send_events": False, "delivery_mode": 2,
    "exchange": "", "routing_key": "low", "mandatory": False, "immediate": False, "typing": True, "abstract": False,
    "bind": False, "lazy": True, "pydantic": False, "pydantic_strict": False, "pydantic_context": None,
    "pydantic_dump_kwargs": None,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The '.*' task attribute")
@pytest.mark.parametrize("option", OF_CELERY)
def test_the_app_that_ships_knows_all_options_of_celery(option: str) -> None:
    assert declare(ShippedApp("shop", set_as_current=False), **{option: OF_CELERY[option]})


@pytest.mark.filterwarnings("ignore:The '.*' task attribute")
@pytest.mark.parametrize("priority", [99, -1, "high", 1.5, True])
def test_a_priority_outside_the_range_is_refused_where_it_is_declared(priority: object) -> None:
    with pytest.raises(BadOption, match="use an integer from 0 to 9"):
        declare(Celery("shop", set_as_current=False), priority=priority)
