"""The tabs, one module each; see ``taskapp.monitor.flower.page.tab``."""

from __future__ import annotations

import inspect
import pkgutil
from functools import cache
from importlib import import_module

from taskapp.monitor.flower.page.tab import Tab


@cache
def all_tabs() -> tuple[Tab, ...]:
    """Return an instance of each subclass of ``Tab`` in the modules of this folder, in display order."""
    modules = [import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]
    found = [
        kind()
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Tab) and kind.__module__ == module.__name__
    ]
    return tuple(sorted(found, key=lambda tab: tab.order))
