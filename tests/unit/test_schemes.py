"""URLs of servers that nothing speaks to are refused, whatever asks for the configuration."""

from __future__ import annotations

import pytest

from taskapp.errors import InvalidSetting
from taskapp.schemes import check_schemes
from taskapp.settings import load_settings

BROKERS = (
    "redis://h", "rediss://h", "redis+socket:///s", "sentinel://h", "amqp://h", "amqps://h", "pyamqp://h", "memory://",
    "FileSystem://", "sqla+sqlite:///f", "AMQP://h", "shop.transport.Transport://h",
)  # fmt: skip
STORES = ("redis://h", "sentinel://h", "db+postgresql://h/x", "file:///x", "cache+memory://", "shop.Backend://h")


@pytest.mark.parametrize("url", BROKERS)
def test_what_kombu_knows_is_a_broker(url: str) -> None:
    check_schemes(load_settings({"TASKAPP_BROKER_URL": url}))


@pytest.mark.parametrize("url", STORES)
def test_what_celery_knows_keeps_results(url: str) -> None:
    check_schemes(load_settings({"TASKAPP_RESULT_URL": url}))


@pytest.mark.parametrize(
    ("setting", "url", "what", "known"),
    [
        (
            "TASKAPP_BROKER_URL",
            "http://user:secret@x",
            "no broker has the scheme http://; use one of: amqp",
            "rediss",
        ),
        ("TASKAPP_BROKER_URL", "reddis://x", "no broker has the scheme reddis://; did you mean 'redis", "sqs"),
        (
            "TASKAPP_RESULT_URL",
            "amqp://u:secret@x",
            "no result backend has the scheme amqp://; use one of:",
            "mongodb",
        ),
        ("TASKAPP_RESULT_URL", "http+x://y", "no result backend has the scheme http://", "redis"),
    ],
)
def test_what_nothing_speaks_to_is_refused(setting: str, url: str, what: str, known: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        check_schemes(load_settings({setting: url}))

    said = str(caught.value)
    assert said.startswith(f"setting {setting} cannot be '***': {what}")
    assert f" {known}" in said
    assert "secret" not in said
