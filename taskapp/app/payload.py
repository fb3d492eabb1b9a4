"""Typed payloads: checks arguments against annotations, at the submit and before the run.

Imported with the first task type that has something to check, because pydantic takes long to import.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from taskapp.app.annotations import checkable, is_model, parameters_of
from taskapp.errors import InvalidPayload

PLAIN = ("int", "float", "str", "bool", "none")
"""Types whose values already are JSON, by pydantic's names."""
Arguments = tuple[list[Any], dict[str, Any]]


class Payload:
    """Checks the arguments of one task type.

    Arguments annotated with Pydantic models are always checked, plainly annotated ones only
    with ``plain=True``. Others pass through.
    """

    def __init__(self, task_name: str, run: Callable[..., Any], *, plain: bool, bound: bool = False) -> None:
        """Read the annotations of ``run``; the first parameter of a ``bound`` task is the task itself."""
        self.task_name = task_name
        parameters = parameters_of(run, bound=bound)
        adapters = {name: _adapter(hint, must_exist=plain) for name, hint in checkable(run, parameters, plain=plain)}
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._by_position = [(p.name, adapters.get(p.name)) for p in parameters if p.kind in positional]
        self._by_name = {name: adapter for name, adapter in adapters.items() if adapter is not None}
        self._is_plain = all(_is_plain(adapter.core_schema) for adapter in self._by_name.values())

    def __bool__(self) -> bool:
        """Return whether there is anything to check."""
        return bool(self._by_name)

    def to_json(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
        """Check arguments at the caller; return them as JSON.

        Raises:
            InvalidPayload: They are invalid; the error lists every problem with its path.
        """
        checked, named = self.to_python(args, kwargs)
        return (checked, named) if self._is_plain else self._dump(checked, named)

    def named_to_json(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
        """Check the keyword arguments of a signature.

        Positional ones cannot be checked, because a parent's result may be put before them;
        models among them become JSON and the rest stays.
        """
        named = {name: self._check(name, self._by_name.get(name), value) for name, value in kwargs.items()}
        _, dumped = self._dump([], named)
        return [_plain(value) for value in args], dumped

    def to_python(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
        """Check arguments at the worker; return them as the annotated types. Errors are those of ``to_json``."""
        checked = [
            self._check(*self._by_position[index], value) if index < len(self._by_position) else value
            for index, value in enumerate(args)
        ]
        return checked, {name: self._check(name, self._by_name.get(name), value) for name, value in kwargs.items()}

    def _check(self, name: str, adapter: TypeAdapter[Any] | None, value: Any) -> Any:
        if adapter is None:
            return value
        try:
            return adapter.validator.validate_python(value)
        except ValidationError as error:
            raise InvalidPayload(self.task_name, _problems(name, error)) from error

    def _dump(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
        adapters = [adapter for _, adapter in self._by_position]
        dumped = [
            adapters[index].dump_python(value, mode="json")  # type: ignore[union-attr]
            if index < len(adapters) and adapters[index] is not None
            else value
            for index, value in enumerate(args)
        ]
        named = {
            name: self._by_name[name].dump_python(value, mode="json") if name in self._by_name else value
            for name, value in kwargs.items()
        }
        return dumped, named


def _adapter(hint: Any, *, must_exist: bool) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        if must_exist:
            raise
        return None


def _is_plain(schema: Any) -> bool:
    """Return whether values that match pydantic's ``schema`` already are JSON."""
    if "serialization" in schema:
        return False
    if schema["type"] == "union":
        return all(isinstance(choice, dict) and _is_plain(choice) for choice in schema["choices"])
    return schema["type"] in PLAIN or (schema["type"] == "nullable" and _is_plain(schema["schema"]))


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if is_model(value) else value


def _problems(name: str, error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in (name, *problem['loc']))}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
        for problem in error.errors(include_url=False)
    )
