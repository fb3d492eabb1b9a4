"""Checks mail addresses and header lines, and writes them so that nothing in them can end a header."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from email.errors import NonASCIILocalPartDefect, ObsoleteHeaderDefect
from email.header import Header
from email.headerregistry import HeaderRegistry
from functools import lru_cache
from typing import Any

_SPECIALS = frozenset('<>()",;:\\')
_HEADERS = HeaderRegistry()
_HARMLESS = (ObsoleteHeaderDefect, NonASCIILocalPartDefect)
"""Defects to accept: an unquoted dot in a name, and a non-ASCII local part."""
_LOCAL = re.compile(r"[^\s()<>@,;:\\\".\[\]]+(\.[^\s()<>@,;:\\\".\[\]]+)*")
_DOMAIN = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


def check_one_line(text: str) -> str:
    """Return ``text`` if it is safe in a header.

    Raises:
        ValueError: It contains a control character, a line separator or an encoded word, which
            mail programs would decode to something unchecked.
    """
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise ValueError(f"{text!r} contains the control character {character!r}; remove it")
    if "=?" in text:
        raise ValueError(f"{text!r} contains an encoded word; write plain text, it is encoded for you")
    return text


@dataclass(frozen=True)
class MailAddress:
    """A mailbox: ``name <local@domain>``, with the domain in ASCII."""

    name: str
    local: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> MailAddress:
        """Parse ``jo@example.com`` or ``Jo Doe <jo@example.com>``, in any script.

        Raises:
            ValueError: It is not a single valid address.
        """
        check_one_line(text)
        name, local, domain = _mailbox(text.strip()) or ("", "", "")
        ascii_domain = _ascii_domain(domain)
        if ascii_domain is None or len(local.encode()) > 64 or not _is_local(local):
            raise ValueError(
                f"{text!r} is not a mail address; write 'jo@example.com' or 'Jo Doe <jo@example.com>', "
                "with double quotes around a name that contains a comma or other punctuation"
            )
        return cls(check_one_line(name), local, ascii_domain)

    @property
    def spec(self) -> str:
        """The bare address, as sent to the mail server."""
        return f"{self.local}@{self.domain}"

    @property
    def header(self) -> str:
        """The address for a header: ASCII, except for a non-ASCII local part."""
        if not self.name:
            return self.spec
        if self.name.isascii():
            escaped = self.name.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}" <{self.spec}>'
        return f"{encoded(self.name)} <{self.spec}>"


def encoded(text: str) -> str:
    """Encode ``text`` in ASCII for a header; encoded text is folded to lines of at most 75 characters."""
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


@lru_cache(maxsize=2_048)
def _mailbox(text: str) -> tuple[str, str, str] | None:
    """Return name, local part and domain if ``text`` is exactly one mailbox, else ``None``.

    The email package's parser (RFC 5322) tells one mailbox from several and from groups. It also accepts what nobody
    should write: routes, stray commas, comments in an address. So the parsed address must also occur literally in
    ``text``. Parsing takes half a millisecond, and a mail is parsed several times on its way, hence the cache.
    """
    if _SPECIALS.isdisjoint(text):
        local, _, domain = text.rpartition("@")
        return "", local, domain
    try:
        header: Any = _HEADERS("To", text)
    except Exception:  # noqa: BLE001 - endless nesting, for example
        return None
    [*mailboxes] = header.addresses
    is_one = len(mailboxes) == len(header.groups) == 1 and header.groups[0].display_name is None
    if not is_one or text.startswith(",") or any(not isinstance(each, _HARMLESS) for each in header.defects):
        return None
    [one] = mailboxes
    spec = f"{one.username}@{one.domain}"
    return (one.display_name, one.username, one.domain) if text == spec or text.endswith(f"<{spec}>") else None
