"""The recursion limit, which one task can lower for everybody."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from taskapp import recursion


@pytest.fixture(autouse=True)
def limit() -> Iterator[int]:
    before = sys.getrecursionlimit()
    recursion.remember()
    yield before
    sys.setrecursionlimit(before)


def test_a_lowered_limit_is_restored_and_said(limit: int, caplog: pytest.LogCaptureFixture) -> None:
    sys.setrecursionlimit(limit - 1)

    assert recursion.restore()

    assert sys.getrecursionlimit() == limit
    assert caplog.messages == [f"a task had lowered the recursion limit to {limit - 1}; the node has restored {limit}"]


def test_a_raised_limit_stays(limit: int) -> None:
    sys.setrecursionlimit(limit + 1)

    assert not recursion.restore()

    assert sys.getrecursionlimit() == limit + 1
