"""Canvas as messages: what begins with a chord gets a task in front of it, whose end sends the chord.

A chord is more than messages: its parts are counted on the result server, which a transaction of another database
cannot include. A node starts it instead, in the step that settles the first task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.canvas import Signature, chain, chord, group

STARTS = "celery.accumulate"
"""A task type that every node has; without arguments it does nothing."""
OF_THE_FIRST = frozenset({"countdown", "eta", "task_id", "link", "link_error", "add_to_parent"})
"""Options that apply to the canvas as a whole; others apply to its first tasks, too."""

_Chord: Any = chord  # the stubs take it for a function


def as_messages(signature: Any, args: Any, kwargs: Any, options: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Return a signature that is sent as messages alone, and the arguments to send it with.

    Args:
        signature: Any signature; it is not changed.
        args: Arguments to put before its own.
        kwargs: Keyword arguments to add.
        options: Options of the submit.
    """
    if not _begins_with_chord(signature):
        return signature, args, kwargs
    inner = {name: value for name, value in options.items() if name not in OF_THE_FIRST}
    return _started(signature.clone(args, kwargs), inner), (), {}


def _begins_with_chord(signature: Any) -> bool:
    if isinstance(signature, _Chord):
        return True
    if isinstance(signature, group):
        return any(_begins_with_chord(each) for each in signature.tasks)
    if _is_chain(signature) and signature.tasks:
        first = signature.tasks[0]
        return _is_upgraded(signature) or _begins_with_chord(first)
    return False


def _is_chain(signature: Any) -> bool:
    # ``chain`` makes objects of another class.
    return bool(signature.get("subtask_type") == "chain")


def _is_upgraded(steps: Any) -> bool:
    """Return whether Celery makes the beginning of a chain a chord: a group with a step behind it."""
    return isinstance(steps.tasks[0], group) and len(steps.tasks) > 1


def _started(signature: Any, options: Mapping[str, Any]) -> Any:
    """Return ``signature`` behind a task that starts it."""
    if isinstance(signature, group):
        members = [_started(each, options) if _begins_with_chord(each) else each for each in signature.tasks]
        return group(members, app=signature.app)
    start = signature.app.signature(STARTS, immutable=True)
    if _is_chain(signature):
        first, *rest = signature.tasks
    else:
        first, rest = signature, []
    first = _with_arguments(first, signature)
    _set(first, options)
    return chain(start, first, *rest, app=signature.app)


def _with_arguments(first: Any, whole: Any) -> Any:
    """Return ``first`` with the arguments of ``whole``; it takes none from the task that starts it."""
    first = first.clone(whole.args if whole is not first else ())
    _take_no_result(first)
    return first


def _take_no_result(signature: Any) -> None:
    """Let ``signature``, or all tasks it begins with, run with its own arguments alone."""
    if _is_chain(signature):
        _take_no_result(signature.tasks[0])
    elif isinstance(signature, group | _Chord):
        for each in signature.tasks:
            _take_no_result(each)
    else:
        signature.set_immutable(True)


def _set(first: Signature[Any], options: Mapping[str, Any]) -> None:
    for each in first.tasks if isinstance(first, group) else [first]:
        each.set(**{**options, **each.options})
