"""The types of tasks, results and canvas name what exists, and every option of Celery, kombu and taskapp."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import kombu
import pytest

import taskapp
from taskapp.app.options import OPTIONS
from taskapp.client import async_canvas, results
from taskapp.client.option_types import CommonOptions, SubmitOptions
from taskapp.engine.headers import PROPERTIES

PACKAGE = Path(taskapp.__file__).parent
DESCRIBED: dict[str, dict[str, Any]] = {
    "app/task_types.pyi": {"Task": taskapp.Task, "Celery": taskapp.Celery},
    "client/async_canvas.pyi": {name: getattr(async_canvas, name) for name in ("Signature", "chain", "group", "chord")},
    "client/result_types.pyi": {
        "ResultInterface": results.AsyncResult, "EagerInterface": results.EagerResult,
        "SetInterface": results.ResultSet, "GroupInterface": results.GroupResult,
    },
}  # fmt: skip
ON_INSTANCES = {"id", "parent", "app", "_on_fulfilled", "results", "conf"}
OF_TASK_RUNS = {"task_type", "replaced_task_nesting"}
"""Parameters of ``send_task`` that only Celery passes."""
OF_MESSAGES = {"body", "content_type", "content_encoding", "declare", "properties"}
"""Parameters of kombu's ``publish`` that a task has no say in."""


def classes(file: str) -> Iterator[ast.ClassDef]:
    tree = ast.parse((PACKAGE / file).read_text())
    yield from (node for node in tree.body if isinstance(node, ast.ClassDef))


def members(node: ast.ClassDef) -> set[str]:
    named = {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    return named | {
        each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }


@pytest.mark.parametrize("file", DESCRIBED)
def test_what_a_stub_file_describes_exists(file: str) -> None:
    described = {node.name: members(node) for node in classes(file) if node.name in DESCRIBED[file]}

    assert described.keys() == DESCRIBED[file].keys()
    for name, named in described.items():
        missing = {each for each in named - ON_INSTANCES if not hasattr(DESCRIBED[file][name], each)}
        assert missing - {"__ror__"} == set(), name


@pytest.mark.parametrize("file", DESCRIBED)
def test_coroutines_of_a_stub_file_are_coroutines(file: str) -> None:
    for node in classes(file):
        for each in node.body:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in DESCRIBED[file]:
                found = inspect.getattr_static(DESCRIBED[file][node.name], each.name, None)
                if inspect.isfunction(found):
                    assert inspect.iscoroutinefunction(found) == isinstance(each, ast.AsyncFunctionDef), each.name


def test_every_option_of_a_submit_is_known() -> None:
    sent = inspect.signature(celery.Celery.send_task).parameters.keys() - {"self", "name", "args", "kwargs", "options"}
    published = inspect.signature(kombu.Producer.publish).parameters.keys() - {"self"}

    assert SubmitOptions.__annotations__.keys() >= (sent - OF_TASK_RUNS) | (published - OF_MESSAGES) | PROPERTIES.keys()
    assert SubmitOptions.__annotations__.keys() - CommonOptions.__annotations__.keys() == {"task_id"}


def test_every_option_of_a_task_type_is_known() -> None:
    options = next(members(node) for node in classes("app/task_types.pyi") if node.name == "TaskOptions")
    configured = {name for name, _ in celery.Task.from_config} | {*OPTIONS}
    of_decorator = inspect.signature(celery.Celery._task_from_fun).parameters.keys() - {
        "self", "fun", "base", "bind", "options"
    }  # fmt: skip

    assert options >= configured | of_decorator


def test_names_of_the_package_are_those_it_describes() -> None:
    for name in taskapp.__all__:
        assert getattr(taskapp, name)
    with pytest.raises(AttributeError, match="has no attribute 'chian'"):
        taskapp.chian  # noqa: B018
