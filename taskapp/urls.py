"""URLs with passwords: a type that never shows them, and a check that refuses URLs that other libraries misread.

A password that is not percent-encoded becomes part of what parsers take for a host, a port or a path, and so appears
in their errors. Such a URL is refused here, before another library sees it, with an error that quotes no part of it.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*"
NEXT_URL = re.compile(rf";(?={SCHEME}://)")
"""Separates the URLs of several servers."""
USER = r"[\w.%-]*"
"""A user name; other characters may be part of a password."""
PLAIN = frozenset({"redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps", "pyamqp"})
"""Schemes whose parts are all checked here; others have their own rules."""
NUMBERED = frozenset({"redis", "rediss", "sentinel"})
"""Schemes whose path is a database number."""
FILES = ("sqlite", "file")
"""Suffixes of schemes without a login, where an @ is part of a path."""
CERTIFICATES, CERTIFICATE_CHECKS = "ssl_cert_reqs", ("required", "optional", "none")
ENCODED = "percent-encode user and password (/ is %2F, @ is %40, # is %23, ? is %3F, ; is %3B)"


class SecretText:
    """A text that is always shown as ``**********``, or as nothing if it is empty."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """Return the text."""
        return self._text

    def __bool__(self) -> bool:
        """Return whether there is any text."""
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        """Return whether ``other`` is the same secret."""
        return isinstance(other, type(self)) and self._text == other.get_secret_value()

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return "**********" if self._text else ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class SecretUrl(SecretText):
    """A URL that is always shown as ``redis://user:***@host/0``; ``get_secret_value()`` returns all of it."""

    __slots__ = ()

    def __str__(self) -> str:
        return masked(self.get_secret_value())


def revealed(secret: SecretText | None) -> str | None:
    """Return the text in ``secret``; ``None`` stays ``None``."""
    return None if secret is None else secret.get_secret_value()


def servers_of(url: str) -> list[str]:
    """Return the URLs of all servers in ``url``; the first reachable one is used."""
    return NEXT_URL.split(url)


def are_several_redis(url: str | None) -> bool:
    """Return whether ``url`` names several Redis servers; several Sentinels still name one."""
    return url is not None and url.startswith("redis") and len(servers_of(url)) > 1


def with_certificates(url: str | None) -> str | None:
    """Return ``url``; a ``rediss`` URL gets the parameter that makes Celery check certificates, unless it has one."""
    if url is None or not url.startswith("rediss://") or CERTIFICATES in url.partition("?")[2]:
        return url
    return f"{url}{'&' if '?' in url else '?'}{CERTIFICATES}=required"


def masked(url: str) -> str:
    """Return ``url``, of one server or several, without passwords and queries, which may also contain one."""
    return ";".join(map(_masked, NEXT_URL.split(url)))


def _masked(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(SCHEME, scheme):
        return "***"
    before, _, query = rest.partition("?")
    if "@" in query:  # the end of the password is unknown
        return f"{scheme}{separator}***"
    login, at, place = ("", "", before) if scheme.endswith(FILES) else before.rpartition("@")
    user = login.partition(":")[0]
    login = f"{user if re.fullmatch(USER, user) else ''}:***@" if at else ""
    return f"{scheme}{separator}{login}{place}"


def check_url(url: str) -> None:
    """Check that all libraries read ``url``, of one server or several, the same way.

    Raises:
        ValueError: They do not; the error names the remedy and quotes no part of the URL.
    """
    scheme = ""
    for each in url.split(";"):
        if "://" in each:
            scheme, _, rest = each.partition("://")
        elif "@" in each:
            raise ValueError(f"each of several URLs with a login needs a scheme; {ENCODED}")
        else:  # as in sentinel://:password@one:26379;two:26379
            rest = each
        if not re.fullmatch(SCHEME, scheme):
            raise ValueError("use a URL, such as redis://localhost:6379/0")
        if scheme in PLAIN:
            _check_rest(scheme, rest)


def _split(rest: str) -> SplitResult:
    """Return the parts of a URL without its scheme.

    Raises:
        ValueError: It is not a valid URL.
    """
    try:
        parts = urlsplit(f"http://{rest}")
        _ = parts.hostname
    except ValueError:
        raise ValueError(f"it cannot be read as a URL; {ENCODED}") from None
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"its port is not a number from 1 to 65535; {ENCODED}")
    if re.search(r"\s", parts.netloc.rpartition("@")[2]):
        raise ValueError("its host name contains white space; remove it")
    return parts


def _check_rest(scheme: str, rest: str) -> None:
    parts = _split(rest)
    if scheme == "redis+socket" and not (parts.netloc.rpartition("@")[2] or parts.path.strip("/")):
        raise ValueError("it names no socket; write redis+socket:///path/to/redis.sock")
    if scheme in NUMBERED:
        if re.fullmatch(r"/?\d*/?", parts.path) is None:
            raise ValueError(f"its path is not a database number, such as the 0 in redis://host/0; {ENCODED}")
        is_right = True
    elif scheme == "redis+socket":
        is_right = not parts.netloc or (parts.netloc.endswith("@") and "@" not in parts.path)
    else:
        is_right = "@" not in parts.path
    # An empty port is the start of a password.
    if not is_right or parts.fragment or "@" in parts.query or parts.netloc.endswith(":"):
        raise ValueError(f"it has a character where none belongs; {ENCODED}")
    for name, value in parse_qsl(parts.query):
        if name == CERTIFICATES and value.removeprefix("CERT_").lower() not in CERTIFICATE_CHECKS:
            raise ValueError(f"{CERTIFICATES} must be one of {', '.join(CERTIFICATE_CHECKS)}")
    if any("password" in name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError(
            "a password in the query would appear in logs; write it before the host: redis://user:password@host/0"
        )
