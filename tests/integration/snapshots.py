"""A program that compares Celery's and kombu's modules and classes before and after taskapp is imported and used.

Prints what has changed, as JSON: ``place`` to how.
"""

from __future__ import annotations

import importlib
import json
import sys
from types import ModuleType
from typing import Any

LIBRARIES = ("celery", "kombu", "billiard", "vine", "amqp", "redis")
Seen = dict[str, tuple[Any, type, Any]]


def is_theirs(name: str) -> bool:
    return name.partition(".")[0] in LIBRARIES


def everything() -> Seen:
    """Return each attribute of each of their modules and classes: itself, its class, and what it holds."""
    found: Seen = {}
    for module_name, module in list(sys.modules.items()):
        if not is_theirs(module_name):
            continue
        for name, value in list(vars(module).items()):
            if name in ("__builtins__", "__warningregistry__") or isinstance(value, ModuleType):
                continue
            found[f"{module_name}.{name}"] = value, type(value), held(value)
            if isinstance(value, type) and is_theirs(value.__module__):
                for attribute, own in vars(value).items():
                    found[f"{value.__module__}.{value.__qualname__}.{attribute}"] = own, type(own), held(own)
    return found


def held(value: Any) -> Any:
    """Return what ``value`` holds, by identity."""
    if isinstance(value, dict):
        return {repr(key): id(each) for key, each in list(value.items())}
    if isinstance(value, list | tuple | set | frozenset):
        return [id(each) for each in value]
    if not isinstance(value, type) and is_theirs(type(value).__module__):
        return {
            name: held(each) if isinstance(each, dict | list | set) else id(each)
            for name, each in own_of(value).items()
        }
    return None


def own_of(value: Any) -> dict[str, Any]:
    """Return the attributes of ``value``, past a proxy."""
    try:
        own: dict[str, Any] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return own


def difference(before: Seen, after: Seen) -> dict[str, str]:
    changed: dict[str, str] = {}
    for place, (value, kind, holds) in before.items():
        if place not in after:
            changed[place] = "is gone"
            continue
        now, kind_now, holds_now = after[place]
        if now is not value:
            changed[place] = f"is another object: {now!r}"
        elif kind_now is not kind:
            changed[place] = f"is of another class: {kind_now!r}"
        elif holds_now != holds:
            changed[place] = "has grown" if has_grown(holds, holds_now) else "holds something else"
    modules = {place.rpartition(".")[0] for place in before}
    for place in after.keys() - before.keys():
        if place.rpartition(".")[0] in modules:
            changed[place] = f"is new: {after[place][0]!r}"
    return changed


def has_grown(before: Any, after: Any) -> bool:
    if isinstance(before, dict):
        return all(
            key in after and (after[key] == value or has_grown(value, after[key])) for key, value in before.items()
        )
    return isinstance(before, list) and all(each in after for each in before)


def use(app: Any) -> None:
    """Use what a plain app fills in its first use: lazy names and caches."""
    import celery

    _ = [getattr(celery, name) for name in celery.__all__]

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    add.delay(1, 2)
    add.apply((1, 2)).get()


if __name__ == "__main__":
    import celery

    for module in sys.argv[1].split(","):
        importlib.import_module(module)
    plain = celery.Celery("plain", broker="memory://", backend="cache+memory://")
    use(plain)
    known = everything()

    from taskapp.tasks import add

    assert add.apply((1, 2)).get() == 3
    assert add.delay(1, 2).id
    sys.stdout.write(json.dumps(difference(known, everything())))
