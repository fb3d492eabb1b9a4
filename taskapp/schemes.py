"""Checks the schemes of broker and result URLs: those of kombu's transports and of Celery's backends are valid."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from urllib.parse import parse_qsl

from celery.app.backends import BACKEND_ALIASES
from celery.utils.imports import load_extension_class_names
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES, get_transport_cls

from taskapp.errors import InvalidSetting, did_you_mean
from taskapp.settings import Settings
from taskapp.urls import PLAIN, revealed, servers_of

USUAL = ("redis", "rediss", "sentinel", "amqp", "amqps")
"""Schemes that a misspelt one is likely to mean."""
KNOWN_IN_QUERY = frozenset(
    name
    for name, parameter in inspect.signature(Connection.__init__).parameters.items()
    if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    and name not in ("self", "transport_options", "uri_prefix", "failover_strategy", "alternates")
)
"""Options that kombu reads from the query of a broker URL."""

VARIABLES: Mapping[str, str] = MappingProxyType({})


def check_schemes(settings: Settings, names: Mapping[str, str] = VARIABLES) -> None:
    """Check that there is a client for the servers in ``settings``.

    Args:
        settings: The app's settings.
        names: Field to the name that the user gave the setting, for errors; default: the variable.

    Raises:
        InvalidSetting: A scheme is unknown; the error lists the known ones.
    """
    broker_url, name = revealed(settings.broker_url), names.get("broker_url", "TASKAPP_BROKER_URL")
    _check(name, broker_url, "broker", TRANSPORT_ALIASES)
    for each in servers_of(broker_url or ""):
        _check_transport(name, each)
    result_url = revealed(settings.result_url)
    if result_url is not None and _kind(result_url) not in BACKEND_ALIASES:
        extensions: Iterable[tuple[str, str]] = load_extension_class_names("celery.result_backends")  # type: ignore[assignment]  # typed as something else
        name = names.get("result_url", "TASKAPP_RESULT_URL")
        _check(name, result_url, "result backend", {**BACKEND_ALIASES, **dict(extensions)})


def _check_transport(name: str, url: str) -> None:
    """Check that the package of a transport is installed, and that kombu knows all options in the URL's query."""
    scheme, _, rest = url.partition("://")
    kind = scheme.partition("+")[0].lower()
    if kind in PLAIN:
        names = {name for name, _ in parse_qsl(rest.partition("?")[2]) if not name.startswith("ssl_")}
        if names - KNOWN_IN_QUERY:
            problem = "its query has an option that kombu does not know; move it to app.conf.broker_transport_options"
            raise InvalidSetting(name, "***", problem)
    elif kind in TRANSPORT_ALIASES:
        try:
            get_transport_cls(kind)
        except ImportError as error:
            problem = f"{kind}:// needs a package that is not installed: {error}"
            raise InvalidSetting(name, "***", problem) from error


def _kind(url: str) -> str:
    # The part after a plus names the database driver.
    return url.partition("://")[0].partition("+")[0]


def _check(setting: str, url: str | None, what: str, known: Iterable[str]) -> None:
    if url is None:
        return
    kind = _kind(url)
    # A scheme with a dot is the path of a class.
    if not {kind, kind.lower()} & set(known) and "." not in kind:
        schemes = ", ".join(sorted({name.lower() for name in known}))
        meant = did_you_mean(kind, [name for name in USUAL if name in known])
        raise InvalidSetting(setting, "***", f"no {what} has the scheme {kind}://{meant}; use one of: {schemes}")
