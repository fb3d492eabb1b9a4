"""The second pair of eyes: nobody starts its thread again."""

from __future__ import annotations

import pytest

from taskapp.engine.watchdog import Watchdog
from tests.support import eventually


def test_a_look_that_fails_is_logged_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    looks: list[int] = []

    def look() -> bool:
        looks.append(1)
        if len(looks) == 1:
            raise ValueError("once")
        return False

    Watchdog(look).begin()

    eventually(lambda: len(looks) > 2)
    assert caplog.text.count("the watchdog of the loop failed; trying again") == 1
