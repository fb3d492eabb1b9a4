"""One name, one class: what a reader finds by name is what the text means."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import taskapp

ROOT = Path(taskapp.__file__).parent
TWICE = {"Migration", "OutboxMessage", "Task"}
"""Names that Django gives, or takes from a model: its migrations, the outbox in each ORM, the task in its admin."""


def test_no_two_public_classes_of_a_module_share_a_name() -> None:
    places = defaultdict(list)
    for path in ROOT.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))

    assert {name: found for name, found in places.items() if len(found) > 1 and name not in TWICE} == {}
