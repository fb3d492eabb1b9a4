"""Opens an outbox by its URL."""

from __future__ import annotations

import os
from importlib.util import find_spec

from celery.utils.imports import symbol_by_name

from taskapp.errors.outbox import BadOutboxURL, OutboxNotSet, OutboxPackageMissing
from taskapp.outbox.rows import OutboxStore
from taskapp.sql import CONNECT_SECONDS
from taskapp.urls import masked

DJANGO = "django://"
"""Prefix of the URL of a Django project's database; its alias in ``DATABASES`` follows."""
DJANGO_SETTINGS = "DJANGO_SETTINGS_MODULE"


def open_store(url: str | None, connect_seconds: int = CONNECT_SECONDS) -> OutboxStore:
    """Return the outbox at ``url``, without connecting.

    Args:
        url: An SQLAlchemy URL, or ``django://alias``. ``None``: the default database of the Django project.
        connect_seconds: How long connecting may take; Django's own settings decide for its databases.

    Raises:
        OutboxNotSet: There is neither a URL nor a Django project.
        BadOutboxURL: The URL is malformed, or names an unsupported database.
        OutboxPackageMissing: A package for this database is not installed.
    """
    if url is None and not os.environ.get(DJANGO_SETTINGS):
        raise OutboxNotSet
    if url is None or url.startswith(DJANGO):
        return _of_django((url or "").removeprefix(DJANGO) or "default")
    if find_spec("sqlalchemy") is None:
        raise OutboxPackageMissing("sqlalchemy", "outbox")
    from taskapp.outbox.sql_store import SqlStore

    return SqlStore.at(url, connect_seconds)


def _of_django(alias: str) -> OutboxStore:
    url = masked(f"{DJANGO}{alias}")
    if find_spec("django") is None:
        raise OutboxPackageMissing("django", "django")
    if not os.environ.get(DJANGO_SETTINGS):
        raise BadOutboxURL(url, f"{DJANGO_SETTINGS} is not set")
    import django
    from django.conf import settings

    django.setup()
    if alias not in settings.DATABASES:
        raise BadOutboxURL(url, f"{alias!r} is not in DATABASES ({', '.join(settings.DATABASES)})")
    store: OutboxStore = symbol_by_name("taskapp.django.outbox_store:DjangoStore")(alias)
    return store
