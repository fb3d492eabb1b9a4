"""Private names of Celery, kombu, billiard, py-amqp and redis-py: each in one of two tables, its source pinned."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

from taskapp import celery_internals
from taskapp.redis import internals as redis_internals
from taskapp.testing import internals as testing_internals
from tests.private_names import ROOT, pins, sources, uses
from tests.unit.pinned_sources import PINNED

FILES = {
    "celery_internals.py": celery_internals, "redis/internals.py": redis_internals,
    "testing/internals.py": testing_internals,
}  # fmt: skip
OURS = frozenset({"_unchecked_run", "_is_method", "_with_headers"})
"""Private names of classes of ours that other modules of ours use."""


def names(table: dict[str, dict[str, str]]) -> dict[str, set[str]]:
    return {owner: {name for listed in rows for name in listed.split()} for owner, rows in table.items()}


ACCESSED = {path: names(module.ACCESSED) for path, module in FILES.items()}
INHERITED = {owner: found for module in FILES.values() for owner, found in names(module.INHERITED).items()}


@cache
def to_pin() -> dict[str, str]:
    tables = [table for module in FILES.values() for table in (module.ACCESSED, module.INHERITED)]
    return {where: digest(source) for table in tables for where, source in pins(table).items()}


def digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def foreign_uses(path: str, text: str) -> list[str]:
    return [str(use) for use in uses(path, ast.parse(text)) if not use.is_own and use.name not in OURS]


@pytest.mark.parametrize(
    "code",
    [
        "connection._sock", "connection.pool._pool.pid", "from celery import _state", "import celery._state",
        "from redis._parsers import socket", "getattr(schedule, f'_orig_{field}')", "super(A, b)._c()",
        "hasattr(result, '_cache')",
        "setattr(task, '_backend', None)", "self.pool._pool", "operator.attrgetter('_cache')", "current()._name",
        "def f(self):\n    self.connection._sock = None", "kombu.serialization.registry._encoders",
    ],
)  # fmt: skip
def test_uses_of_others_private_names_are_found(code: str) -> None:
    assert foreign_uses("x.py", code)


@pytest.mark.parametrize(
    "code",
    [
        "self._sock", "os._exit(1)", "asyncio.tasks._current_tasks", "letter._asdict()", "super()._connect()",
        "class A:\n    @classmethod\n    def of(cls):\n        new = cls.__new__(cls)\n        new._x = 1",
    ],
)  # fmt: skip
def test_what_is_ones_own_or_the_standard_librarys_is_not(code: str) -> None:
    assert foreign_uses("x.py", f"import os, asyncio\n{code}") == []


def test_no_other_file_uses_a_private_name_of_theirs() -> None:
    found = [use for path, tree in sources() if path not in FILES for use in uses(path, tree)]

    assert [str(use) for use in found if not use.is_own and use.name not in OURS] == [], (
        "use a public name of theirs; where there is none, put it into taskapp/celery_internals.py, or for redis-py "
        "into taskapp/redis/internals.py, behind a plain name"
    )


@pytest.mark.parametrize("path", FILES)
def test_the_tables_name_what_their_file_uses_and_nothing_else(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    used = {use.name for use in uses(path, tree) if not use.is_own}

    assert used - {"_state"} == set().union(*ACCESSED[path].values())


def test_what_classes_inherit_and_use_is_in_the_table_and_nothing_else() -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "tests.private_names"], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    found = {owner: set(names) for owner, names in json.loads(asked.stdout).items()}
    of_mixins = mixed_in()

    for owner in found.keys() | INHERITED.keys():
        listed = INHERITED.get(owner, set())
        assert found.get(owner, set()) <= listed, f"name these in celery_internals.INHERITED, at {owner}"
        assert listed - found.get(owner, set()) <= of_mixins, f"not used any more of {owner}"


def mixed_in() -> set[str]:
    """Return the private names used by our classes that are combined with foreign ones at runtime, and texts."""
    return {
        name
        for path, tree in sources()
        if path not in FILES
        for node in ast.walk(tree)
        for name in (
            getattr(node, "name", None), getattr(node, "attr", None),
            node.value if isinstance(node, ast.Constant) else None,
        )
        if isinstance(name, str) and name.startswith("_")
    }  # fmt: skip


def test_a_mixins_names_are_listed_as_well() -> None:
    """What no class of ours defines is somebody else's, also where the class that has it is chosen at runtime."""
    everything = [use for path, tree in sources() if path not in FILES for use in uses(path, tree) if use.is_own]
    known = defined_by_us().union(*INHERITED.values())

    assert [str(use) for use in everything if use.name not in known] == []


def defined_by_us() -> set[str]:
    found: set[str] = set(OURS)
    for _, tree in sources():
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    found.add(name)
                case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                    found.add(name)
                case ast.Constant(value=str(name)):
                    found.add(name)  # __slots__
    return found


@pytest.mark.parametrize("where", PINNED)
def test_what_we_rely_on_is_as_it_was_when_ours_was_written(where: str) -> None:
    now = to_pin().get(where)
    library = where.partition(".")[0].partition(":")[0]

    assert now == PINNED[where], (
        f"{where} of {library} {version(library)} is not what it was: read it, compare with what uses it "
        f"(the tables in celery_internals.py and redis/internals.py say what for), and write {now!r} into "
        "tests/unit/pinned_sources.py"
    )


def test_what_we_use_is_pinned_and_nothing_else() -> None:
    assert {where: now for where, now in to_pin().items() if where not in PINNED} == {}, "write them into PINNED"
    assert PINNED.keys() == to_pin().keys()


@pytest.mark.parametrize("library", ["celery", "kombu", "billiard", "amqp", "redis"])
def test_what_we_use_the_internals_of_has_an_upper_bound(library: str) -> None:
    """A release with other internals is not installed before somebody has looked at it."""
    project = (ROOT.parent / "pyproject.toml").read_text()

    assert re.search(rf'^    "{library}(\[\w+\])?(~=\d+\.\d+\.\d+|>=[\d.]+,<\d+\.\d+)"', project, re.MULTILINE)
