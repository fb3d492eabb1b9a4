"""Tables: what is copied is whole at every width, and what goes to a pipe is never cut."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskapp.cli.table import CUT, GAP, TextTable, columns_of
from tests.support import examples

ID = str(uuid.UUID(int=7))
HEADINGS = ("letter", "reason", "task", "id", "buried at", "error")
ROW = ("default/17", "failed", "shop.tasks.send_invoice", ID, "2026-12-01 09:00:00 UTC", "ValueError: " + "x" * 300)


def lines(rows: list[tuple[str, ...]], width: int | None) -> tuple[list[str], list[str]]:
    table = TextTable(HEADINGS, ("letter", "id"), ("buried at", "reason"), width)
    return list(table.lines(rows)), table.dropped


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_row_is_one_line_in_which_ids_are_whole(width: int) -> None:
    [heading, row], dropped = lines([ROW], width)

    assert max(columns_of(heading), columns_of(row)) <= width
    assert {"default/17", ID} <= {*row.split(GAP)}
    assert not {"letter", "id"} & {*dropped}


def test_expendable_columns_go_first_and_wide_ones_shrink_before() -> None:
    assert lines([ROW], 200)[1] == []
    assert lines([ROW], 70)[1] == ["reason", "buried at"]
    [_, row], _ = lines([ROW], 120)
    assert CUT in row


def test_what_goes_to_a_pipe_is_whole() -> None:
    [_, row], dropped = lines([ROW], None)

    assert [cell.strip() for cell in row.split(GAP) if cell.strip()] == list(ROW)
    assert dropped == []


def test_an_id_wider_than_the_terminal_is_whole_all_the_same() -> None:
    row = (*ROW[:3], "custom-" * 20, *ROW[4:])

    assert "custom-" * 20 in lines([row], 60)[0][1]


def test_no_rows_are_no_table() -> None:
    assert lines([], 80)[0] == []


texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=40)


@given(st.lists(st.tuples(*[texts] * 6), min_size=1, max_size=5), st.integers(10, 160))
@settings(max_examples=examples(200), deadline=None)
def test_no_line_is_wider_than_the_terminal_unless_ids_are(rows: list[tuple[str, ...]], width: int) -> None:
    made, _ = lines(rows, width)
    kept = (
        max(columns_of("letter"), *(columns_of(row[0]) for row in rows)),
        max(2, *(columns_of(row[3]) for row in rows)),
    )

    assert len(made) == len(rows) + 1
    assert all(columns_of(line) <= max(width, sum(kept) + len(GAP)) for line in made)
    assert all(row[0] in line and row[3] in line for row, line in zip(rows, made[1:], strict=True))
