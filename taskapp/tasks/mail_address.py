"""Mail addresses and header lines: checked, and written so that nothing in them can end a header."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from email.header import Header

_NAMED = re.compile(r"(?P<name>.*)<(?P<spec>[^<>]*)>")
_LOCAL = re.compile(r"[^\s()<>@,;:\\\".\[\]]+(\.[^\s()<>@,;:\\\".\[\]]+)*")
_DOMAIN = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


def check_one_line(text: str) -> str:
    """Return ``text`` when it can stand in a header.

    Raises:
        ValueError: It holds a control character, a line separator or an encoded word, which
            mail programs would decode to who knows what.
    """
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise ValueError(f"{text!r} holds the control character {character!r}; leave it out")
    if "=?" in text:
        raise ValueError(f"{text!r} holds an encoded word; write plain text, it is encoded for you")
    return text


@dataclass(frozen=True)
class MailAddress:
    """A mailbox: ``name <local@domain>``, the domain in ASCII."""

    name: str
    local: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> MailAddress:
        """Read ``jo@example.com`` or ``Jo Doe <jo@example.com>``, in any script.

        Raises:
            ValueError: It is none, or several.
        """
        check_one_line(text)
        named = _NAMED.fullmatch(text.strip())
        local, _, domain = (named["spec"] if named else text.strip()).rpartition("@")
        ascii_domain = _ascii_domain(domain)
        if ascii_domain is None or len(local.encode()) > 64 or not _is_local(local):
            raise ValueError(f"{text!r} is no mail address; write 'jo@example.com' or 'Jo Doe <jo@example.com>'")
        return cls(_unquoted(named["name"].strip()) if named else "", local, ascii_domain)

    @property
    def spec(self) -> str:
        """The bare address, as the mail server gets it."""
        return f"{self.local}@{self.domain}"

    @property
    def header(self) -> str:
        """The address as it stands in a header: ASCII, except for a local part that is not."""
        if not self.name:
            return self.spec
        if self.name.isascii():
            escaped = self.name.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}" <{self.spec}>'
        return f"{encoded(self.name)} <{self.spec}>"


def encoded(text: str) -> str:
    """Return ``text`` for a header in ASCII, folded to lines of at most 75 characters where encoded."""
    return text if text.isascii() else Header(text, "utf-8", maxlinelen=75).encode(linesep="\r\n")


def _is_local(local: str) -> bool:
    return bool(_LOCAL.fullmatch(local)) and not any(unicodedata.category(c)[0] in "CZ" for c in local)


def _ascii_domain(domain: str) -> str | None:
    name = domain.lower()
    if not name.isascii():
        import idna

        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError:
            return None
    return name if len(name) <= 253 and _DOMAIN.fullmatch(name) else None


def _unquoted(name: str) -> str:
    if len(name) >= 2 and name[0] == name[-1] == '"':
        return re.sub(r"\\(.)", r"\1", name[1:-1])
    return name
