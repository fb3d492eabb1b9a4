"""The letters of ``settle.lua`` and ``note.lua``, in Python and in Lua."""

from __future__ import annotations

import re
from types import ModuleType

from taskapp.engine import settlement, task_notes
from taskapp.redis.scripts import ROOMS


def script(name: str) -> str:
    return (ROOMS / "engine" / "lua" / f"{name}.lua").read_text()


def letters_of(module: ModuleType, prefix: str) -> list[str]:
    return sorted(letter for name, letter in vars(module).items() if name.startswith(prefix))


def explained_in(source: str) -> list[str]:
    return sorted(re.findall(r"^--   '(\w)'", source, re.MULTILINE))


def test_every_step_has_one_letter_that_the_header_of_its_script_explains() -> None:
    steps, notes = letters_of(settlement, "STEP_"), letters_of(task_notes, "NOTE_")

    assert steps == explained_in(script("settle"))
    assert notes == explained_in(script("note"))
    assert len(set(steps)) == len(steps)
    assert (task_notes.NOTE_RUN, task_notes.NOTE_HISTORY) == (settlement.STEP_RUN, settlement.STEP_HISTORY)


def test_the_script_knows_the_width_of_every_step_as_its_header_lists_it() -> None:
    table = re.search(r"^local WIDTH = {(.*)}", script("settle"), re.MULTILINE)
    assert table is not None
    widths = {letter: int(width) for letter, width in re.findall(r"(\w) = (\d)", table[1])}
    header = re.sub(r"\([^)]*\)", "", script("settle"))
    listed = {letter: 1 + len(rest.split(",")) for letter, rest in re.findall(r"^--   '(\w)', (.+?)   ", header, re.M)}

    assert {letter: listed[letter] for letter in widths} == widths
    assert sorted(widths) == sorted(
        set(letters_of(settlement, "STEP_")) - {settlement.STEP_CLAIM, settlement.STEP_LETTER}
    )
