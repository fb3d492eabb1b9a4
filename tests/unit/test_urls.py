"""Passwords in settings: no text that is made of a setting, or of an error about one, has a piece of it."""

from __future__ import annotations

import contextlib
import copy
import itertools
import pickle
import string
import traceback
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery
from celery.app.utils import sanitize_url
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kombu import Connection

from taskapp.app.configuration import configuration
from taskapp.errors import InvalidSetting
from taskapp.settings import SECRET_FIELDS, Settings, load_settings
from taskapp.urls import SecretUrl, check_url, masked
from tests.support import examples

CANARY = "c4naryXq"
AWKWARD = "/@#?;:%[]&+= \\é"

FORMS = (
    "redis://:{}@host:6379/0", "redis://user:{}@host/0", "rediss://:{}@host/0?ssl_cert_reqs=none",
    "redis://:{}@[::1]:6379/0", "redis+socket://:{}@/run/redis.sock", "redis://host/0?password={}",
    "redis+socket:///run/redis.sock?password={}", "redis://host/0?username=a&password={}", "redis:/:{}@host/0", "{}",
    "sentinel://:{}@one:26379;sentinel://:{}@two:26379", "sentinel://:{}@one:26379;two:26379",
    "redis://dead:6379;redis://:{}@alive:6379", "amqp://user:{}@host//", "amqp://user:{}@host/v;amqp://user:{}@other/v",
    "redis:///:{}@host", "redis://:{}@host:port/0", "redis//:{}@host/0",
)  # fmt: skip
DATABASES = ("postgresql://user:{}@host/name", "mysql://user:{}@host/name?x={}", "postgresql:user:{}@host", "db:{}")

passwords = st.tuples(
    st.text(AWKWARD + string.ascii_letters, max_size=4), st.text(AWKWARD + string.digits, max_size=4)
).map(CANARY.join)


def shown_of(loaded: Settings) -> str:
    """Return what can be seen of ``loaded``, and of what Celery makes of it."""
    url = loaded.broker_url.get_secret_value() if loaded.broker_url else None
    app = Celery(set_as_current=False)
    app.conf.update(configuration(loaded, url, ships_task_types=True))
    seen: list[Any] = [loaded, repr(loaded), asdict(loaded), app.conf.humanize()]
    seen += [app.conf.table(), f"{loaded.broker_url} {loaded.result_url!r} {loaded.history_url}"]
    if url:
        seen += [Connection(url).as_uri(), repr(Connection(url)), app.bugreport()]
    return "\n".join(map(str, seen))


def outcome(environ: dict[str, str]) -> str:
    """Return what is to be seen when a process has these variables: what is loaded, or a traceback."""
    try:
        return shown_of(load_settings(environ))
    except InvalidSetting as error:
        return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__context__)


@given(st.sampled_from(FORMS), passwords, st.booleans(), st.sampled_from(["BROKER", "RESULT"]))
@settings(max_examples=examples(100), deadline=None)
def test_no_url_shows_its_password_whether_it_can_be_read_or_not(
    form: str, password: str, is_encoded: bool, which: str
) -> None:
    url = form.replace("{}", quote(password, safe="") if is_encoded else password)

    assert CANARY not in outcome({f"TASKAPP_{which}_URL": url, "TASKAPP_ROUTES": "x=default"})
    assert CANARY not in outcome({f"TASKAPP_{which}_URL": url, "TASKAPP_ROUTES": "x=nosuch"})


def test_no_place_of_an_awkward_character_lets_a_password_through() -> None:
    befores = ["", "a", "12", "1@", "12?", "12;", *AWKWARD, *map("".join, itertools.product(AWKWARD, repeat=2))]
    afters = ["", "1", "/@", *AWKWARD]
    told = []
    for form, before, after in itertools.product(FORMS, befores, afters):
        url = form.replace("{}", before + CANARY + after)
        seen = masked(url)
        with contextlib.suppress(ValueError):
            check_url(url)
            seen += Connection(url).as_uri() + str(sanitize_url(url))
        told += [url] if CANARY in seen else []

    assert told == []


@given(st.sampled_from(DATABASES), passwords, st.booleans())
@settings(max_examples=examples(100), deadline=None)
def test_no_database_shows_its_password(form: str, password: str, is_encoded: bool) -> None:
    url = form.replace("{}", quote(password, safe="") if is_encoded else password)
    assume("://" in form or "://" not in url)  # db://name has a host and no password

    assert CANARY not in outcome({"TASKAPP_HISTORY_URL": url})


@pytest.mark.parametrize("field", sorted(SECRET_FIELDS))
def test_a_secret_is_not_shown_when_another_setting_is_wrong(field: str) -> None:
    secret = f"redis://:{CANARY}@host/0" if field.endswith("url") else CANARY

    for wrong in ({"TASKAPP_ROUTES": "x=nosuch"}, {"TASKAPP_SMTP_PORT": "0"}, {}):
        assert CANARY not in outcome({f"TASKAPP_{field.upper()}": secret, **wrong})


def test_what_is_named_like_a_secret_is_of_a_type_that_hides_it() -> None:
    named = {name for name in Settings.__dataclass_fields__ if name.endswith(("_url", "password", "secret", "token"))}

    assert named <= SECRET_FIELDS


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host:1/0", "redis://:***@host:1/0"),
        ("rediss://shop:secret@host/0?password=secret", "rediss://shop:***@host/0"),
        ("redis://:sec@ret@host/0", "redis://:***@host/0"),
        ("redis://:sec/ret@host/0", "redis://:***@host/0"),
        ("redis://:sec;ret@host/0", "redis://:***@host/0"),
        ("redis://:secret?x@host/0", "redis://***"),
        ("redis://host/0", "redis://host/0"),
        ("sentinel://:secret@a;sentinel://:secret@b/0", "sentinel://:***@a;sentinel://:***@b/0"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("sqlite:////home/me@work/history.sqlite", "sqlite:////home/me@work/history.sqlite"),
        ("redis:/:secret@host", "***"),
        ("secret", "***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert masked(url) == str(SecretUrl(url)) == shown
    assert repr(SecretUrl(url)) == f"SecretUrl({shown!r})"


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0", "redis://:p%2Fw@host", "rediss://u:p@[::1]:6380/1?ssl_cert_reqs=none",
        "redis+socket:///run/redis/redis.sock?virtual_host=3", "redis+socket:///run/a@b.sock",
        "sentinel://:p@one:26379;sentinel://two:26379/0", "sentinel://:p@one:26379;two:26379",
        "amqp://guest:guest@rabbit:5672//", "amqp://u:p@host/v%2Fhost", "memory://", "rpc://", "db+sqlite:////a/b",
        "cache+memcached://127.0.0.1:11211;127.0.0.2:11211/", "db+postgresql://u:p/w@host/name", "redis://:a@b@host",
    ],
)  # fmt: skip
def test_what_can_be_read_is_taken_as_it_is(url: str) -> None:
    check_url(url)

    assert load_settings({"TASKAPP_BROKER_URL": url}).broker_url.get_secret_value() == url


@pytest.mark.parametrize(
    ("url", "results"),
    [
        ("rediss://host/0", "rediss://host/0?ssl_cert_reqs=required"),
        ("rediss://host?ssl_ca_certs=/ca.pem", "rediss://host?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required"),
        ("rediss://host/0?ssl_cert_reqs=CERT_NONE", "rediss://host/0?ssl_cert_reqs=CERT_NONE"),
        ("redis://host/0", "redis://host/0"),
    ],
)
@pytest.mark.parametrize("setting", ["TASKAPP_BROKER_URL", "TASKAPP_RESULT_URL"])
def test_results_over_tls_check_certificates_unless_told_otherwise(setting: str, url: str, results: str) -> None:
    settings = load_settings({"TASKAPP_BROKER_URL": "redis://other", setting: url})

    assert (
        configuration(settings, settings.broker_url.get_secret_value(), ships_task_types=True)["result_backend"]
        == results
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("localhost", "use a URL, such as redis://localhost:6379/0"),
        (
            "redis://:se/cret@host/0",
            "its port is not a number from 1 to 65535; percent-encode user and password (/ is %2F",
        ),
        ("redis://:1/2@host/0", "its path is not a database number, such as the 0 in redis://host/0; percent-encode"),
        ("redis://host/0#cret", "it has a character where none belongs"),
        ("redis://host/0?password=x", "a password in the query would appear in logs; write it before the host"),
        ("rediss://host/0?ssl_cert_reqs=yes", "ssl_cert_reqs must be one of required, optional, none"),
    ],
)
def test_what_would_be_misread_is_refused_with_the_remedy(url: str, why: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        load_settings({"TASKAPP_BROKER_URL": url})

    assert str(refused.value).startswith(f"setting TASKAPP_BROKER_URL cannot be '***': {why}")
    assert refused.value.__cause__ is None


def test_what_sentinels_want_is_not_shown_either() -> None:
    app = Celery(set_as_current=False)
    loaded = load_settings({"TASKAPP_BROKER_URL": "sentinel://:x@one:26379"})
    app.conf.update(configuration(loaded, "sentinel://:x@one:26379", ships_task_types=True))
    for options in (app.conf.broker_transport_options, app.conf.result_backend_transport_options):
        options["sentinel_kwargs"] = {"password": CANARY, "username": "ada"}

    seen = [app.conf.humanize(), app.conf.table(), app.bugreport(), app.connection(), app.connection().as_uri()]

    assert CANARY not in "\n".join(map(str, seen))


def test_settings_can_be_sent_to_another_process() -> None:
    loaded = load_settings({"TASKAPP_BROKER_URL": "redis://:secret@host/0"})

    assert pickle.loads(pickle.dumps(loaded)) == loaded
    assert copy.deepcopy(loaded) == loaded
