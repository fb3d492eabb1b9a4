"""What the package names by text, so that it need not import it, is there."""

from __future__ import annotations

import re
from pathlib import Path

import django
import pytest
from celery.utils.imports import symbol_by_name
from django.conf import settings

import taskapp

NAME = re.compile(r"""["'](taskapp(?:\.\w+)+:\w+)["']""")
"""A class or function, as Celery, kombu and Click take one."""
NAMES = sorted(
    {name for file in Path(taskapp.__file__).parent.rglob("*.py") for name in NAME.findall(file.read_text())}
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_text_can_be_imported(name: str) -> None:
    if name.startswith("taskapp.django.") and not settings.configured:
        settings.configure(INSTALLED_APPS=["taskapp.django"])  # models are made from settings
        django.setup()

    assert symbol_by_name(name) is not None


def test_the_names_are_found() -> None:
    assert {"taskapp.beat.scheduler:Scheduler", "taskapp.cli.main:main"} & {*NAMES}
