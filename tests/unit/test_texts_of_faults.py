"""Fault rows look for lines of the log, whose words may change."""

from __future__ import annotations

from pathlib import Path

import pytest

import taskapp
from tests.faults.beats import STANDS_BY
from tests.faults.rows.row_14_malformed_messages import SET_ASIDE
from tests.faults.rows.row_23_resets import LEASE_LOST


@pytest.mark.parametrize("text", [STANDS_BY, SET_ASIDE, LEASE_LOST])
def test_nodes_and_beats_still_log_what_fault_rows_look_for(text: str) -> None:
    sources = Path(taskapp.__file__).parent.rglob("*.py")

    assert any(text in source.read_text() for source in sources)
