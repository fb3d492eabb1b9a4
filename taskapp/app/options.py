"""Checks taskapp's options of task types: misspelt ones are refused, because Celery accepts any name."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any

import celery

from taskapp.errors.history import BadMasks, UnknownTaskOption

OPTIONS = ("cpu_bound", "typed", "keeps_failures", "masks", "sensitive")
STOCK = frozenset(dir(celery.Task))
"""Attributes of Celery's class. Not checked with ``hasattr``: reading ``app`` would bind the class to one app for the
whole process."""
ALIKE = 0.7
"""Similarity, from 0 to 1, from which a name counts as misspelt; ``mask`` and ``masks`` have 0.89."""


def check_options(task_type: Any) -> None:
    """Check the options of ``task_type``.

    Raises:
        UnknownTaskOption: An option is misspelt, such as ``@app.task(mask=…)``, which would show hidden values.
        BadMasks: ``masks`` are not names.
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
