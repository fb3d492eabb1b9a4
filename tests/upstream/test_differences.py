"""What differs on purpose is written down for those who move a project."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upstream.celery_suite import CELERY
from tests.upstream.other_suites import FLOWER, KOMBU_RABBITMQ, KOMBU_REDIS

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
REASONS = {reason for suite in (CELERY, FLOWER, KOMBU_RABBITMQ, KOMBU_REDIS) for reason in suite.differences.values()}


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_each_difference_is_on_the_page(reason: str) -> None:
    assert reason in PAGE.read_text()
