"""Which schemes the URLs of a broker and of results may have: those of kombu's transports and of Celery's backends."""

from __future__ import annotations

from collections.abc import Iterable

from celery.app.backends import BACKEND_ALIASES
from celery.utils.imports import load_extension_class_names
from kombu.transport import TRANSPORT_ALIASES

from taskapp.errors import InvalidSetting
from taskapp.settings import Settings
from taskapp.urls import revealed


def check_schemes(settings: Settings) -> None:
    """Make sure that something speaks to the servers that ``settings`` name.

    Raises:
        InvalidSetting: Nothing does; names the scheme and those there are.
    """
    _check("TASKAPP_BROKER_URL", revealed(settings.broker_url), "broker", TRANSPORT_ALIASES)
    result_url = revealed(settings.result_url)
    if result_url is not None and _kind(result_url) not in BACKEND_ALIASES:
        extensions: Iterable[tuple[str, str]] = load_extension_class_names("celery.result_backends")  # type: ignore[assignment]  # typed as something else
        _check("TASKAPP_RESULT_URL", result_url, "store of results", {**BACKEND_ALIASES, **dict(extensions)})


def _kind(url: str) -> str:
    # What follows a plus is of the database.
    return url.partition("://")[0].partition("+")[0]


def _check(setting: str, url: str | None, what: str, known: Iterable[str]) -> None:
    if url is None:
        return
    kind = _kind(url)
    # One with a dot is the path of a class.
    if not {kind, kind.lower()} & set(known) and "." not in kind:
        schemes = ", ".join(sorted({name.lower() for name in known}))
        raise InvalidSetting(setting, "***", f"no {what} has the scheme {kind}://; there are: {schemes}")
