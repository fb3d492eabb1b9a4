"""What a test sees of tasks: those submitted, those run; and what it expects, with readable differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Any

from kombu.utils.json import dumps, loads


@dataclass(frozen=True, eq=False)
class Submitted:
    """A task as it was submitted, with the arguments that arrive: what was a tuple inside them is a list.

    Equal to a ``call`` with the same task and arguments, and to a ``Submitted`` that is equal except for the ids.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str = ""
    priority: int = 0
    eta: datetime | None = None
    """When it is due; ``None``: at once."""
    expires: datetime | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Other options that were set: ``ignore_result``, ``time_limit``, ``soft_time_limit``, ``shadow``, ``headers``."""
    retries: int = 0
    """Number of earlier runs; only in ``Tasks.waiting``."""
    id: str = ""
    root_id: str = ""
    parent_id: str | None = None
    """The task that submitted it."""
    group_id: str | None = None
    """The group or chord that it belongs to."""

    def __eq__(self, other: object) -> bool:
        return _compared(self) == _compared(other) if isinstance(other, Submitted) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # arguments are not hashable

    def __repr__(self) -> str:
        extras = [f"queue={self.queue!r}"]
        extras += [f"priority={self.priority}"] if self.priority else []
        extras += [f"eta={self.eta.isoformat()}"] if self.eta else []
        extras += [f"expires={self.expires.isoformat()}"] if self.expires else []
        extras += [f"retries={self.retries}"] if self.retries else []
        extras += [f"{name}={value!r}" for name, value in self.options.items()]
        return f"{_shown(self.name, self.args, self.kwargs)} <{', '.join(extras)}>"


def _compared(record: Submitted) -> tuple[Any, ...]:
    return (
        record.name, record.args, dict(record.kwargs), record.queue, record.priority, record.eta, record.expires,
        dict(record.options), record.retries,
    )  # fmt: skip


class call:  # noqa: N801 - used like ``unittest.mock.call``
    """An expected task: ``call(add, 2, 3)``. Equal to each ``Submitted`` with this task and these arguments.

    Arguments are compared as JSON represents them; ``unittest.mock.ANY`` stands for any value.

    Args:
        task: A task type, its name, or a signature.
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    def __init__(self, task: Any, /, *args: Any, **kwargs: Any) -> None:
        self.name = name_of(task)
        self.args, self.kwargs = args, kwargs
        if isinstance(task, Mapping):  # a signature
            self.args, self.kwargs = (*args, *task["args"]), {**task["kwargs"], **kwargs}
        elif not isinstance(task, str) and hasattr(task, "payload") and (payload := task.payload()):
            values, named = payload.to_json(self.args, self.kwargs)
            self.args, self.kwargs = tuple(values), named

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Submitted):
            return other.name == self.name and not self.differences(other)
        if isinstance(other, call):
            return (self.name, self.args, self.kwargs) == (other.name, other.args, other.kwargs)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # the same

    def __repr__(self) -> str:
        return _shown(self.name, self.args, self.kwargs)

    def differences(self, other: Submitted) -> list[str]:
        """Return how the arguments of ``other`` differ, one line each."""
        found = []
        if len(other.args) != len(self.args):
            found.append(f"expected {_count(len(self.args))}, got {len(other.args)}")
        for index, (wanted, given) in enumerate(zip(self.args, other.args, strict=False)):
            if not _is(wanted, given):
                found.append(f"argument {index}: expected {wanted!r}, got {given!r}")
        for name in dict.fromkeys((*self.kwargs, *other.kwargs)):
            if name not in other.kwargs:
                found.append(f"{name}: expected {self.kwargs[name]!r}, got none")
            elif name not in self.kwargs:
                found.append(f"{name}: expected none, got {other.kwargs[name]!r}")
            elif not _is(self.kwargs[name], other.kwargs[name]):
                found.append(f"{name}: expected {self.kwargs[name]!r}, got {other.kwargs[name]!r}")
        return found


@dataclass(frozen=True)
class Run:
    """A run that has ended."""

    name: str
    id: str
    state: str
    """``SUCCESS``, ``FAILURE``, ``RETRY``, ``REVOKED`` (also: expired), ``IGNORED`` or ``REJECTED``."""
    at: datetime
    """When it ran, by the clock of the test."""
    result: Any = None
    """What the task returned."""
    error: BaseException | None = None
    """The error of a failure or a retry."""

    def __repr__(self) -> str:
        end = f"{self.error!r}" if self.error is not None else f"{self.result!r}"
        return f"<{self.name} at {self.at:%H:%M:%S}: {self.state} {end}>"


def name_of(task: Any) -> str:
    """Return the name of a task type, of a signature's task, or of a task given by name."""
    if isinstance(task, str):
        return task
    return str(task["task"] if isinstance(task, Mapping) else task.name)


def not_submitted(expected: call, submitted: Sequence[Submitted], known: str) -> str:
    """Return the message of an assertion that ``expected`` is among ``submitted``.

    Args:
        expected: The task that was not submitted.
        submitted: All that were.
        known: A hint for a name that is unknown; may be empty.
    """
    alike = [record for record in submitted if record.name == expected.name]
    lines = [f"{expected!r} was not submitted{known}"]
    for record in alike:
        lines += [f"  submitted: {record!r}", *(f"    {each}" for each in expected.differences(record))]
    others = [record for record in submitted if record.name != expected.name]
    if others or not submitted:
        lines += [
            "  other tasks:" if alike else "  submitted:",
            *([f"    {each!r}" for each in others] or ["    nothing"]),
        ]
    return "\n".join(lines)


def explained(left: object, right: object) -> list[str] | None:
    """Return why two lists of tasks are not equal, line by line; ``None`` if they are something else."""
    if not (isinstance(left, list) and isinstance(right, list) and [*left, *right]):
        return None
    if not all(isinstance(each, Submitted | call) for each in (*left, *right)):
        return None
    if any(isinstance(each, call) for each in left):
        left, right = right, left
    lines = ["tasks as expected"]
    for given, wanted in zip_longest(left, right):
        if given == wanted:
            lines.append(f"  {given!r}")
            continue
        lines += [f"- {wanted!r}"] if wanted is not None else []
        lines += [f"+ {given!r}"] if given is not None else []
        if isinstance(wanted, call) and isinstance(given, Submitted) and wanted.name == given.name:
            lines += [f"    {each}" for each in wanted.differences(given)]
    return lines


def _shown(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    return f"{name}({', '.join([*map(repr, args), *(f'{key}={value!r}' for key, value in kwargs.items())])})"


def _count(number: int) -> str:
    return f"{number} argument{'' if number == 1 else 's'}"


def _is(wanted: Any, given: Any) -> bool:
    if wanted == given:
        return True
    try:
        return bool(loads(dumps(wanted)) == given)
    except (TypeError, ValueError, RecursionError):
        return False
