"""What a function's annotations say, without pydantic: it takes long to import, and most task types use no model."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

NO_MODELS = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})


def parameters_of(run: Callable[..., Any], *, bound: bool) -> list[inspect.Parameter]:
    """Return the parameters of ``run``; the first one of a ``bound`` task is the task itself and left out."""
    return list(inspect.signature(run).parameters.values())[int(bound) :]


def checkable(
    run: Callable[..., Any], parameters: Sequence[inspect.Parameter], *, plain: bool
) -> Iterator[tuple[str, Any]]:
    """Yield the name and annotation of each of ``parameters`` that is to be checked.

    Args:
        run: The function.
        parameters: See ``parameters_of``.
        plain: Whether plain annotations count as well as Pydantic models.
    """
    hints = _hints(run)
    for parameter in parameters:
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        hint = hints.get(parameter.name, Any)
        if hint is not Any and (plain or _holds_model(hint)):
            yield parameter.name, hint


def is_model(value: Any) -> bool:
    """Return whether ``value`` is an instance of a Pydantic model."""
    if type(value) in NO_MODELS:  # as most results are
        return False
    return (model := _model_class()) is not None and isinstance(value, model)


def _hints(run: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of ``run``; none if only a type checker can resolve them: like Celery, accept such tasks.

    A name that its module imports when it is first used (``__getattr__``) is resolved as well.
    """
    module, found = sys.modules.get(run.__module__), dict[str, Any]()
    while True:
        try:
            return typing.get_type_hints(run, localns=found, include_extras=True)
        except NameError as error:
            if not (name := error.name) or name in found or not hasattr(module, name):
                return {}
            found[name] = getattr(module, name)


def _holds_model(hint: Any) -> bool:
    if inspect.isclass(hint) and not typing.get_args(hint):
        return (model := _model_class()) is not None and issubclass(hint, model)
    return any(_holds_model(part) for part in typing.get_args(hint))


def _model_class() -> type | None:
    # Where its module has not defined it, nothing can be one, even while another thread imports pydantic.
    return getattr(sys.modules.get("pydantic.main"), "BaseModel", None)
