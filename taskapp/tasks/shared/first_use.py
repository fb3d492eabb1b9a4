"""Lets a task type's module offer the models of its payload without importing pydantic before one is used."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any


def models_of(module: str, names: Collection[str], *sources: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of ``module``, which imports a model when it is first used.

    Args:
        module: Name of the module.
        names: The names that it offers.
        sources: Modules that define the models.
    """

    def on_first_use(name: str) -> Any:
        if name in names:
            for source in map(import_module, sources):
                if hasattr(source, name):
                    return getattr(source, name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return on_first_use
