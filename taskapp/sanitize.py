"""Escapes foreign text for terminals and logs, so that it cannot move the cursor, change colors or fake a line."""

from __future__ import annotations

INDENT = "    "


def sanitize(text: object, *, keep: str = "") -> str:
    """Return ``text`` on one line, with every non-printable character escaped except those in ``keep``.

    This includes control characters (C0, DEL and C1, and so every ANSI sequence), line breaks of all kinds, marks that
    reverse or hide text, and lone surrogates.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(each if each.isprintable() or each in keep else _escaped(each) for each in shown)


def sanitize_lines(text: object) -> str:
    """Return sanitized ``text`` with all lines but the first indented, so that none looks like a new entry."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return f"\n{INDENT}".join(sanitize(line, keep="\t") for line in shown.split("\n"))


def sanitize_json(text: str) -> str:
    """Return ``text``, JSON in ASCII, with DEL escaped, the only control character that JSON leaves unescaped."""
    return text.replace("\x7f", "\\u007f")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
