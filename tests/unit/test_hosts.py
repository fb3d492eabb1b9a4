from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskapp.monitor.hosts import Hosts, checked, refusal

PORTS = ("", ":80", ":5555")


@given(st.ip_addresses(v=4), st.sampled_from(PORTS))
def test_what_asks_by_an_address_is_answered(address, port):
    assert Hosts([]).admits(f"{address}{port}")


@given(st.ip_addresses(v=6), st.sampled_from(PORTS))
def test_what_asks_by_an_address_of_ipv6_is_answered(address, port):
    assert Hosts([]).admits(f"[{address}]{port}")


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "LocalHost",
        "localhost.",
        "web.localhost",
        "flower.example",
        "a.b.example.com",
        "host-1",
        "[fe80::1%25eth0]",
    ],
)
def test_names_that_are_known_are_answered(name, port):
    assert Hosts(["flower.example", "*.EXAMPLE.com"], listens_on="host-1").admits(name + port)


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(
    "name",
    [
        "evil.example", "example.com", "flower.example.evil", "notflower.example", "evilexample.com", ".example.com",
        "localhost.evil", "notlocalhost", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "[evil.example]",
        "evil.example#localhost", "0.0.0.0.0", "10.0.0.1.nip.io", "exämple", "\x00",
    ],
)  # fmt: skip
def test_other_names_are_not(name, port):
    assert not Hosts(["flower.example", "*.example.com"], listens_on="0.0.0.0").admits(name + port)


def test_every_name_is_answered_on_request_and_so_is_none():
    assert Hosts(["*"]).admits("evil.example")
    assert Hosts([]).admits(None)


def test_the_refusal_quotes_little_and_nothing_that_controls_a_terminal():
    assert refusal("evil.example:80") == (
        "this server does not answer for the host 'evil.example:80'; if it should, add it to TASKAPP_WEB_HOSTS\n"
    )
    assert refusal("\x1b[31mé" + "x" * 1_000).isascii()
    assert "\x1b" not in refusal("\x1b[31m")
    assert len(refusal("x" * 1_000)) < 300


def test_an_application_is_not_even_asked_for_a_foreign_host():
    asked = []
    app = checked(lambda environ, _: asked.append(environ) or [b"data"], Hosts([]))
    statuses = []

    refused = app({"HTTP_HOST": "evil.example"}, lambda status, _: statuses.append(status))
    answered = app({"HTTP_HOST": "10.1.2.3:9540"}, lambda status, _: statuses.append(status))

    assert statuses == ["403 Forbidden"]
    assert b"evil.example" in b"".join(refused)
    assert answered == [b"data"]
    assert len(asked) == 1
