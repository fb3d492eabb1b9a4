"""Finds arguments of a call by name, whether they were given by position, by name, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any

BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class MissingArgument(LookupError):
    """A call lacks an argument."""


class Arguments:
    """The parameters of a task's function, prepared to find their values in many calls.

    A function with ``**kwargs`` accepts any name. ``*args`` and ``**kwargs`` themselves are found under their names:
    the list and the dict of the arguments that no other parameter takes.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        positional = [parameter.name for parameter in parameters if parameter.kind in BY_POSITION]
        self._positions = {name: position for position, name in enumerate(positional)}
        self._by_name = frozenset(parameter.name for parameter in parameters if parameter.kind in BY_NAME)
        self._defaults = {
            parameter.name: parameter.default for parameter in parameters if parameter.default is not Parameter.empty
        }
        kinds = {parameter.kind: parameter.name for parameter in parameters}
        self._rest, self._others = kinds.get(Parameter.VAR_POSITIONAL), kinds.get(Parameter.VAR_KEYWORD)
        self.names = tuple(parameter.name for parameter in parameters)
        self.takes_any = self._others is not None
        """Whether the function accepts keyword arguments of any name."""

    def __contains__(self, name: str) -> bool:
        return self.takes_any or name in self.names

    def find(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return the value that a call gives the parameter ``name``, or its default.

        Raises:
            MissingArgument: There is neither.
        """
        if name in kwargs:
            return kwargs[name]
        position = self._positions.get(name)
        if position is not None and position < len(args):
            return args[position]
        if name in self._defaults:
            return self._defaults[name]
        if name == self._rest:
            return args[len(self._positions) :]
        if name == self._others:
            return self._further(kwargs)
        raise MissingArgument(name)

    def all(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """Return all arguments in an order that does not depend on how the call gave them; defaults count as given."""
        values = {**self._defaults, **dict(zip(self._positions, args, strict=False))}
        values.update((name, value) for name, value in kwargs.items() if name in self._by_name)
        return [values, list(args[len(self._positions) :]), self._further(kwargs)]

    def _further(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in kwargs.items() if name not in self._by_name}


ANY = Arguments([Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)])
"""The arguments of a function whose parameters are unknown."""
