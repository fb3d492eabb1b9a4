"""The packages of taskapp's extras that are checked before they are needed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from taskapp.errors.extras import MissingExtra, TaskTypeMissesExtra

_OF_TASKS = {
    "data": ("duckdb",),
    "reports": ("jinja2", "matplotlib"),
    "http": ("httpx", "idna"),
    "mail": ("idna",),
}
PACKAGES: dict[str, tuple[str, ...]] = {
    **_OF_TASKS,
    "reload": ("watchfiles",),
    "top": ("rich",),
    "demo": (*dict.fromkeys(package for packages in _OF_TASKS.values() for package in packages), "rich", "aiosmtpd"),
}
"""Extra to packages, the same as in ``pyproject.toml``."""


def missing_package(extra: str) -> str | None:
    """Return the first package of ``extra`` that is not installed, without importing any; ``None``: all are."""
    return next((package for package in PACKAGES[extra] if find_spec(package) is None), None)


def require(extra: str, what: str) -> None:
    """Check that ``extra``, which ``what`` needs, is installed.

    Raises:
        MissingExtra: It is not installed.
    """
    if package := missing_package(extra):
        raise MissingExtra(what, package, extra)


def missing_extra(task_type: Any) -> TaskTypeMissesExtra | None:
    """Return the error of a task type whose extra is not installed; ``None``: it is installed, or none is needed."""
    extra = getattr(task_type, "needs_extra", "")
    package = missing_package(extra) if extra else None
    return TaskTypeMissesExtra(task_type.name, package, extra) if package else None
