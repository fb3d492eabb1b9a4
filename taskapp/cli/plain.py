"""Text of others on a terminal: nothing in it may move the cursor, change colours or hide what stands there."""

from __future__ import annotations


def plain(text: object, *, keep: str = "") -> str:
    """Return ``text`` with every character that does not print written as its escape, but for those in ``keep``."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(each if each.isprintable() or each in keep else _escaped(each) for each in shown)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
