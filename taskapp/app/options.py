"""Options of task types that are ours: what is nearly one of them is refused, for Celery takes any."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any

import celery

from taskapp.errors.history import BadMasks, UnknownTaskOption

OPTIONS = ("cpu_bound", "typed", "keeps_failures", "masks", "sensitive")
STOCK = frozenset(dir(celery.Task))
"""Not asked by ``hasattr``: to look at its ``app`` binds Celery's own class to one, for all apps of the process."""
ALIKE = 0.7
"""From 0 to 1: ``mask`` and ``masks`` are 0.89."""


def check_options(task_type: Any) -> None:
    """Refuse what ``task_type`` cannot mean.

    Raises:
        UnknownTaskOption: ``@app.task(mask=…)``: what was to be kept out of sight would be shown.
        BadMasks: ``masks`` are no names.
    """
    given = vars(task_type)
    masks = task_type.masks
    if isinstance(masks, str) or not all(isinstance(name, str) and name for name in masks):
        raise BadMasks(task_type.name, masks)
    if not given.get("_decorated"):
        return  # a class may have any attribute
    for name in given:
        is_known = name in OPTIONS or name.startswith("_") or name in STOCK
        if not is_known and any(SequenceMatcher(None, name, option).ratio() >= ALIKE for option in OPTIONS):
            raise UnknownTaskOption(task_type.name, name, OPTIONS)
