"""Task types whose classes are not ours."""

from __future__ import annotations

import celery
import pytest

from taskapp.app.application import Celery
from taskapp.app.registry import Registry
from taskapp.app.task import Task


@pytest.fixture
def app() -> Celery:
    app = Celery("shop", set_as_current=False, task_cls=Task, tasks=Registry())
    app.conf.update(broker_url="memory://", result_backend="cache+memory://")
    return app


class Foreign(celery.Task):
    subclasses: list[str] = []  # noqa: RUF012 - shared on purpose

    def __init_subclass__(cls) -> None:
        cls.subclasses.append(cls.__name__)

    def run(self, number: int) -> int:
        return number + self.more()

    def more(self) -> int:
        return 0


class Derived(Foreign):
    name = "derived"

    def more(self) -> int:
        return super().more() + 10


def test_a_class_keeps_what_it_overrides_and_hears_nothing_of_ours(app: Celery) -> None:
    task = app.register_task(Derived())

    assert isinstance(task, Task)
    assert isinstance(task, Derived)
    assert task(1) == 11
    assert task.apply((2,)).get() == 12
    assert Foreign.subclasses == ["Derived"]
    assert not issubclass(Derived, Task)
    assert Derived.mro()[1] is Foreign


def test_two_instances_of_a_class_are_two_types(app: Celery) -> None:
    class Report(app.Task):  # type: ignore[name-defined]
        max_retries = 2

        def run(self, number: int) -> str:
            return f"{self.name} {number}"

    first, second = Report(), Report()
    first.name, second.name = "first", "second"
    app.register_task(first, autoretry_for=(KeyError,))
    app.register_task(second)

    assert [task.apply((1,)).get() for task in (first, second)] == ["first 1", "second 1"]
    assert (type(first).name, type(second).name) == ("first", "second")
    assert "run" not in vars(first)


def test_an_inherited_function_is_checked_for_the_type_that_inherits_it(app: Celery) -> None:
    class Pay(app.Task):  # type: ignore[name-defined]
        name, typed = "pay", True

        def run(self, amount: int) -> int:
            return amount

    class PayLate(Pay):
        name = "pay_late"

    app.register_task(Pay())
    late = app.register_task(PayLate())

    with pytest.raises(Exception, match="pay_late"):
        late.delay("much")


def test_options_of_a_registration_hold(app: Celery) -> None:
    class Fragile(celery.Task):
        name = "fragile"

        def run(self) -> None:
            raise KeyError("once more")

    task = app.register_task(Fragile(), autoretry_for=(KeyError,), max_retries=1, retry_kwargs={"countdown": 0})

    assert type(task).autoretry_for == (KeyError,)
    assert task.apply().state == "FAILURE"
