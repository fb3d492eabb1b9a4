"""URLs that hold passwords: a type that never shows them, and a check which lets none through that others misread.

A password that is not percent-encoded ends up in what parsers take for a host, a port or a path, and from there in
their errors. So such a URL is refused here, before any other library sees it, in a sentence that quotes nothing.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import SecretStr

SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*"
NEXT_URL = re.compile(rf";(?={SCHEME}://)")
"""Between the URLs of several servers."""
USER = r"[\w.%-]*"
"""What may stand before the colon of a login; anything else may be a piece of a password."""
PLAIN = frozenset({"redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps", "pyamqp"})
"""Schemes of which every part is known here; others have rules of their own."""
NUMBERED = frozenset({"redis", "rediss", "sentinel"})
"""Schemes whose path is the number of a database."""
FILES = ("sqlite", "file")
"""How schemes end that have no login: an @ is part of a path."""
CERTIFICATES, CERTIFICATE_CHECKS = "ssl_cert_reqs", ("required", "optional", "none")
ENCODED = "percent-encode user and password (/ is %2F, @ is %40, # is %23, ? is %3F, ; is %3B)"


class SecretUrl(SecretStr):
    """A URL that shows as ``redis://user:***@host/0``, wherever it is shown; ``get_secret_value()`` is the whole."""

    def _display(self) -> str:
        return masked(self.get_secret_value())


def revealed(secret: SecretStr | None) -> str | None:
    """Return the text in ``secret``, for the code that uses it."""
    return None if secret is None else secret.get_secret_value()


def servers_of(url: str) -> list[str]:
    """Return the URLs of several servers, of which the first that can be reached is used."""
    return NEXT_URL.split(url)


def are_several_redis(url: str | None) -> bool:
    """Return whether ``url`` names several Redis to choose from; Sentinels are asked for one."""
    return url is not None and url.startswith("redis") and len(servers_of(url)) > 1


def with_certificates(url: str | None) -> str | None:
    """Return ``url``; a ``rediss`` one says that certificates are checked, which Celery wants to be told."""
    if url is None or not url.startswith("rediss://") or CERTIFICATES in url.partition("?")[2]:
        return url
    return f"{url}{'&' if '?' in url else '?'}{CERTIFICATES}=required"


def masked(url: str) -> str:
    """Return ``url``, of one server or several, without passwords and without queries, which may hold one too."""
    return ";".join(map(_masked, NEXT_URL.split(url)))


def _masked(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(SCHEME, scheme):
        return "***"
    before, _, query = rest.partition("?")
    if "@" in query:  # where the password ends nobody can tell
        return f"{scheme}{separator}***"
    login, at, place = ("", "", before) if scheme.endswith(FILES) else before.rpartition("@")
    user = login.partition(":")[0]
    login = f"{user if re.fullmatch(USER, user) else ''}:***@" if at else ""
    return f"{scheme}{separator}{login}{place}"


def check_url(url: str) -> None:
    """Make sure that ``url``, of one server or several, is read the same way by everybody.

    Raises:
        ValueError: It is not; with the remedy and no part of it.
    """
    scheme = ""
    for each in url.split(";"):
        if "://" in each:
            scheme, _, rest = each.partition("://")
        elif "@" in each:
            raise ValueError(f"each of several URLs with a login needs its scheme; {ENCODED}")
        else:  # as in sentinel://:password@one:26379;two:26379
            rest = each
        if not re.fullmatch(SCHEME, scheme):
            raise ValueError("a URL is needed, such as redis://localhost:6379/0")
        if scheme in PLAIN:
            _check_rest(scheme, rest)


def _split(rest: str) -> SplitResult:
    """Return the parts of a URL without its scheme.

    Raises:
        ValueError: It has none.
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
        raise ValueError(f"its port is no number from 1 to 65535; {ENCODED}")
    if re.search(r"\s", parts.netloc.rpartition("@")[2]):
        raise ValueError("there is white space in the name of its host")
    return parts


def _check_rest(scheme: str, rest: str) -> None:
    parts = _split(rest)
    if scheme == "redis+socket" and not (parts.netloc.rpartition("@")[2] or parts.path.strip("/")):
        raise ValueError("it names no socket; write redis+socket:///path/to/redis.sock")
    if scheme in NUMBERED:
        if re.fullmatch(r"/?\d*/?", parts.path) is None:
            raise ValueError(f"its path is no number of a database, such as the 0 in redis://host/0; {ENCODED}")
        is_right = True
    elif scheme == "redis+socket":
        is_right = not parts.netloc or (parts.netloc.endswith("@") and "@" not in parts.path)
    else:
        is_right = "@" not in parts.path
    # An empty port is the beginning of a password.
    if not is_right or parts.fragment or "@" in parts.query or parts.netloc.endswith(":"):
        raise ValueError(f"something stands where it does not belong; {ENCODED}")
    for name, value in parse_qsl(parts.query):
        if name == CERTIFICATES and value.removeprefix("CERT_").lower() not in CERTIFICATE_CHECKS:
            raise ValueError(f"{CERTIFICATES} is one of {', '.join(CERTIFICATE_CHECKS)}")
    if any("password" in name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError(
            "a password in the query shows in logs; write it before the host: redis://user:password@host/0"
        )
