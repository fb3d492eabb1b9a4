"""Explains why a module of task types cannot be imported."""

from __future__ import annotations

import traceback

from taskapp.errors.apps import ModuleNotImported


def not_imported(module: str, setting: str, error: Exception) -> ModuleNotImported:
    """Return the error with ``module``, the ``setting`` that lists it, and the place where its import failed."""
    if isinstance(error, ModuleNotFoundError) and _is_missing(module, error.name):
        remedy = "correct the name, or run this in the folder that holds it or with that folder on PYTHONPATH"
        return ModuleNotImported(module, setting, f"no module named {error.name!r}", "", remedy)
    return ModuleNotImported(
        module, setting, _reason(error), _place(error), f"to see the traceback, run: python -c 'import {module}'"
    )


def _is_missing(module: str, name: str | None) -> bool:
    """Return whether the missing ``name`` is ``module`` or one of its parent packages."""
    return name is not None and f"{module}.".startswith(f"{name}.")


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{kind}: {text}" if text else kind


def _place(error: Exception) -> str:
    """Return file and line where the import failed: the innermost frame outside the import system."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
