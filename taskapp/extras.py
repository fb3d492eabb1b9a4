"""Which packages the extras of taskapp bring, as far as something of ours looks for them before it needs them."""

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
"""By the names of the extras; ``pyproject.toml`` says the same."""


def missing_package(extra: str) -> str | None:
    """Return the first package of ``extra`` that is not installed; ``None``: all are. Imports none of them."""
    return next((package for package in PACKAGES[extra] if find_spec(package) is None), None)


def require(extra: str, what: str) -> None:
    """Make sure that ``extra`` is installed, which ``what`` needs.

    Raises:
        MissingExtra: It is not.
    """
    if package := missing_package(extra):
        raise MissingExtra(what, package, extra)


def missing_extra(task_type: Any) -> TaskTypeMissesExtra | None:
    """Return the error of a type whose extra is not installed; ``None``: it needs none, or it is."""
    extra = getattr(task_type, "needs_extra", "")
    package = missing_package(extra) if extra else None
    return TaskTypeMissesExtra(task_type.name, package, extra) if package else None
