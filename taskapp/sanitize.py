"""Text of others in terminals and logs: it may not move the cursor, change colours or pass for a line of ours."""

from __future__ import annotations

INDENT = "    "


def sanitize(text: object, *, keep: str = "") -> str:
    """Return ``text`` on one line, every character that does not print written as its escape.

    That holds for control characters (C0, DEL and C1, hence every ANSI sequence), line breaks of all kinds, marks that
    reverse or hide text, and lone surrogates; ``keep`` names exceptions.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(each if each.isprintable() or each in keep else _escaped(each) for each in shown)


def sanitize_lines(text: object) -> str:
    """Return ``text`` with its lines, the first flush and the others indented: none of them looks like a new entry."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return f"\n{INDENT}".join(sanitize(line, keep="\t") for line in shown.split("\n"))


def sanitize_json(text: str) -> str:
    """Return ``text``, JSON in ASCII, without the one control character that JSON does not escape."""
    return text.replace("\x7f", "\\u007f")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
