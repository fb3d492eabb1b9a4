"""The letters of ``settle.lua`` and ``note.lua``, in Python and in Lua."""

from __future__ import annotations

import re

from taskapp.engine.settlement import SettleStep
from taskapp.engine.task_notes import NoteStep
from taskapp.redis.scripts import ROOMS

SCRIPT = (ROOMS / "engine" / "lua" / "settle.lua").read_text()
OPENING = {SettleStep.CLAIM, SettleStep.LETTER}


def letters_of_python() -> list[str]:
    return [letter for name, letter in vars(SettleStep).items() if name.isupper()]


def test_every_step_has_one_letter_that_the_header_of_the_script_explains() -> None:
    header = re.findall(r"^--   '(\w)'", SCRIPT, re.MULTILINE)

    assert len(set(letters_of_python())) == len(letters_of_python())
    assert sorted(header) == sorted(letters_of_python())


def test_the_script_knows_the_width_of_every_step_as_its_header_lists_it() -> None:
    table = re.search(r"^local WIDTH = {(.*)}", SCRIPT, re.MULTILINE)
    assert table is not None
    widths = {letter: int(width) for letter, width in re.findall(r"(\w) = (\d)", table[1])}
    header = re.sub(r"\([^)]*\)", "", SCRIPT)
    listed = {letter: 1 + len(rest.split(",")) for letter, rest in re.findall(r"^--   '(\w)', (.+?)   ", header, re.M)}

    assert {letter: listed[letter] for letter in widths} == widths
    assert widths.keys() == set(letters_of_python()) - OPENING


def test_every_kind_of_note_has_one_letter_that_the_header_of_its_script_explains() -> None:
    note = (ROOMS / "engine" / "lua" / "note.lua").read_text()
    letters = [letter for name, letter in vars(NoteStep).items() if name.isupper()]

    assert sorted(re.findall(r"^--   '(\w)'", note, re.MULTILINE)) == sorted(letters)
    assert (NoteStep.RUN, NoteStep.HISTORY) == (SettleStep.RUN, SettleStep.HISTORY)
