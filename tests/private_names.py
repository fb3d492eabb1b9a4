"""Finds where taskapp uses private names of the libraries it is built on."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import django
from django.conf import settings

import taskapp

LIBRARIES = frozenset({"celery", "kombu", "billiard", "vine", "amqp", "redis", "flower"})
ROOT = Path(taskapp.__file__).parent
BY_NAMES = ("getattr", "hasattr", "setattr", "attrgetter", "methodcaller")
OF_NAMED_TUPLES = frozenset({"_replace", "_asdict", "_fields", "_make"})


class Use(NamedTuple):
    """One place."""

    path: str
    line: int
    name: str
    is_own: bool
    """Whether it is a name of ``self``, ``cls``, ``super()`` or of another instance the class has made."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


@cache
def sources() -> tuple[tuple[str, ast.Module], ...]:
    """Return the path below ``taskapp`` and the tree of every module of it."""
    return tuple((str(path.relative_to(ROOT)), ast.parse(path.read_text())) for path in sorted(ROOT.rglob("*.py")))


@cache
def uses(path: str, tree: ast.AST) -> tuple[Use, ...]:
    """Return every use of a private name in ``tree``, but those of the standard library."""
    return tuple(_Finder(path).found_in(tree))


class _Finder(ast.NodeVisitor):
    def __init__(self, path: str) -> None:
        self._path = path
        self._found: list[Use] = []
        self._own = ({"self", "cls"},)
        self._classes: list[str] = []
        self._stdlib: set[str] = set()

    def found_in(self, tree: ast.AST) -> list[Use]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._stdlib |= {a.asname or a.name.split(".")[0] for a in node.names if _is_stdlib(a.name)}
        self.visit(tree)
        return self._found

    def _note(self, node: Any, name: str, *, is_own: bool = False) -> None:
        if is_private(name):
            self._found.append(Use(self._path, node.lineno, name, is_own))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._classes.append(node.name)
        self.generic_visit(node)
        self._classes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        made = {
            target.id
            for each in ast.walk(node)
            if isinstance(each, ast.Assign) and self._makes_own(each.value)
            for target in each.targets
            if isinstance(target, ast.Name)
        }
        self._own = (*self._own, {*self._own[-1], *made})
        self.generic_visit(node)
        self._own = self._own[:-1]

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]  # noqa: N815 - ast's name

    def _makes_own(self, value: ast.AST) -> bool:
        """Return whether ``value`` makes an instance of the class around it."""
        if not self._classes or not isinstance(value, ast.Call):
            return False
        made = ast.unparse(value.func)
        return made in ("cls", "cls.__new__", self._classes[-1])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        root = node.value
        while isinstance(root, ast.Attribute):
            root = root.value
        if not (isinstance(root, ast.Name) and root.id in self._stdlib) and node.attr not in OF_NAMED_TUPLES:
            is_own = (isinstance(node.value, ast.Name) and node.value.id in {*self._own[-1], *self._classes}) or (
                isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
            )
            self._note(node, node.attr, is_own=is_own)
        self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if module == "__future__" or _is_stdlib(module):
            return
        for name in (*module.split("."), *(alias.name for alias in node.names)):
            self._note(node, name)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if not _is_stdlib(alias.name):
                for name in alias.name.split("."):
                    self._note(node, name)

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func).split(".")[-1] in BY_NAMES:
            on_own = bool(node.args) and isinstance(node.args[0], ast.Name) and node.args[0].id in self._own[-1]
            for arg in node.args:
                if isinstance(arg, ast.Constant) and isinstance(arg.value, str):
                    self._note(node, arg.value, is_own=on_own)
                elif isinstance(arg, ast.JoinedStr) and isinstance(first := arg.values[0], ast.Constant):
                    self._note(node, str(first.value), is_own=on_own)
        self.generic_visit(node)


def _is_stdlib(module: str) -> bool:
    return module.split(".")[0] in sys.stdlib_module_names


# --- what classes of ours use or override of those they extend --------------------------------------


def inherited() -> dict[str, set[str]]:
    """Return the private names of foreign classes that classes of ours use as theirs: ``module:class``, then names."""
    found: dict[str, set[str]] = {}
    for kind in _our_classes():
        foreign = [base for base in kind.__mro__ if base.__module__.split(".")[0] in LIBRARIES]
        ours = [base for base in kind.__mro__ if base.__module__.split(".")[0] == "taskapp"]
        for name in {name for base in ours for name in used_in(base)} if foreign else ():
            owner = next((base for base in foreign if name in defined_in(base)), None)
            if owner is not None:
                found.setdefault(f"{owner.__module__}:{owner.__qualname__}", set()).add(name)
    return found


def _our_classes() -> Iterator[type]:
    for module in _our_modules():
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                yield kind


def _our_modules() -> Iterator[ModuleType]:
    # Django's models are made from settings.
    contrib = [f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "messages", "sessions")]
    settings.configure(INSTALLED_APPS=[*contrib, "taskapp.django"])
    django.setup()
    for found in pkgutil.walk_packages(taskapp.__path__, "taskapp."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def _body(kind: type) -> ast.ClassDef | None:
    return _classes_in(kind.__module__).get(kind.__qualname__)


@cache
def _classes_in(module: str) -> dict[str, ast.ClassDef]:
    """Return the classes of a module by their qualified names; ``inspect`` would parse the module once for each."""
    try:
        tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    except (OSError, TypeError):
        return {}
    found: dict[str, ast.ClassDef] = {}

    def look(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            inside = prefix
            if isinstance(child, ast.ClassDef):
                found.setdefault(f"{prefix}{child.name}", child)
                inside = f"{prefix}{child.name}."
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = f"{prefix}{child.name}.<locals>."
            if isinstance(child, ast.stmt | ast.excepthandler):
                look(child, inside)

    look(tree, "")
    return found


@cache
def used_in(kind: type) -> frozenset[str]:
    """Return the private names in the body of ``kind``: defined there, or used as its own."""
    body = _body(kind)
    if body is None:
        return frozenset()
    return frozenset({use.name for use in uses("", body) if use.is_own} | set(_bound_in(body)))


@cache
def defined_in(kind: type) -> frozenset[str]:
    """Return the private names ``kind`` defines, for its instances as well."""
    body = _body(kind)
    assigned = {
        node.attr
        for node in (ast.walk(body) if body is not None else ())
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name)
    }
    return frozenset(filter(is_private, {*vars(kind), *assigned}))


def _bound_in(body: ast.ClassDef) -> Iterator[str]:
    for node in body.body:
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        yield from filter(is_private, names)


# --- the source of what is relied on ---------------------------------------------------------------


def pins(table: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return what is to be pinned of ``table``: where it is defined, and its source."""
    found: dict[str, str] = {}
    for owner, rows in table.items():
        for name in (name for names in rows for name in names.split()):
            found.update([_source_of(owner, name)])
    return found


def _source_of(owner: str, name: str) -> tuple[str, str]:
    """Return where ``name`` of ``owner``, ``module:class`` or ``module``, is defined, and the source.

    Of a function that function, of a name of a module the statements that bind it, of an attribute its class.
    """
    module_name, _, class_name = owner.partition(":")
    module = importlib.import_module(module_name)
    if not class_name:
        defined = getattr(module, name, None)
        if inspect.isfunction(defined) or inspect.isclass(defined):
            return f"{owner}.{name}", inspect.getsource(defined)
        text = inspect.getsource(module)
        if name in owner.split("."):
            return owner, text
        return f"{owner}.{name}", "\n".join(part for part in _statements(text) if name in part)
    kind = getattr(module, class_name)
    defined = inspect.getattr_static(kind, name, None)
    function = getattr(defined, "fget", None) or getattr(defined, "func", None) or getattr(defined, "__func__", defined)
    if inspect.isfunction(function):
        return f"{owner}.{name}", inspect.getsource(inspect.unwrap(function))
    return owner, _source_of_class(kind)


_source_of_class = cache(inspect.getsource)


@cache
def _statements(text: str) -> tuple[str, ...]:
    """Return the source of each statement of a module; ``ast.get_source_segment`` would split all of it for each."""
    lines = text.encode().splitlines(keepends=True)
    parts = []
    for node in ast.parse(text).body:
        part = lines[node.lineno - 1 : node.end_lineno]
        part[-1] = part[-1][: node.end_col_offset]
        part[0] = part[0][node.col_offset :]
        parts.append(b"".join(part).decode())
    return tuple(parts)


if __name__ == "__main__":
    sys.stdout.write(json.dumps({owner: sorted(names) for owner, names in inherited().items()}))
