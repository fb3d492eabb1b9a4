from __future__ import annotations

import gzip
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from taskapp.errors import InvalidSetting, PermanentError
from taskapp.tasks.http_request import HttpRequest, idempotency_key
from taskapp.tasks.http_request.gzip import Gunzip
from taskapp.tasks.http_request.hosts import AllowedHost, canonical_host
from taskapp.tasks.http_request.run import MAX_RETRY_AFTER_SECONDS, Hop, check_allowed, retry_after_seconds
from taskapp.tasks.http_request.target import target_of

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
ALLOWED = [
    AllowedHost.parse(entry)
    for entry in (
        "api.example.com", "*.shop.example", "127.0.0.1:8080", "[::1]:9000", "Bücher.example", "any.example:*",
    )
]  # fmt: skip


def allows(url: str) -> bool:
    try:
        check_allowed(httpx.URL(url), ALLOWED)
    except (PermanentError, httpx.InvalidURL):
        return False
    return True


# --- the allow-list --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/orders",
        "http://api.example.com",
        "https://api.example.com:443/",
        "https://API.Example.COM/",
        "https://api.example.com./",
        "HTTPS://api.example.com/",
        "https://a.shop.example/",
        "https://a.b.shop.example/",
        "http://127.0.0.1:8080/",
        "http://[::1]:9000/",
        "http://[0:0:0:0:0:0:0:1]:9000/",
        "https://bücher.example/",
        "https://xn--bcher-kva.example/",
        "https://XN--BCHER-KVA.example/",
        "https://any.example:8443/",
        "https://any.example/",
    ],
)
def test_a_listed_host_may_be_called_however_it_is_written(url: str) -> None:
    assert allows(url)


@pytest.mark.parametrize(
    "url",
    [
        # another host, near misses
        "https://example.com/", "https://evil.com/", "https://xapi.example.com/", "https://api.example.com.evil.com/",
        "https://shop.example/", "https://evilshop.example/", "https://.shop.example/", "https://a..shop.example/",
        # another port or scheme
        "https://api.example.com:8443/", "http://api.example.com:443/", "http://127.0.0.1/", "http://127.0.0.1:8081/",
        "ftp://api.example.com/", "file:///etc/passwd", "gopher://api.example.com/",
        # logins that look like hosts
        "https://api.example.com@evil.com/", "https://api.example.com:443@evil.com/", "https://me:pw@api.example.com/",
        "https://evil.com\\@api.example.com/", "https://evil.com\\.shop.example/", "https://evil.com%2f.shop.example/",
        "https://evil.com%23.shop.example/", "https://evil.com .shop.example/",
        # the same address in other clothes
        "http://127.1:8080/", "http://2130706433:8080/", "http://0x7f.0.0.1:8080/", "http://0177.0.0.1:8080/",
        "http://127.0.0.1.:8080/", "http://localhost:8080/", "http://[::ffff:127.0.0.1]:8080/",
        "http://[::1%25eth0]:9000/", "http://[::1]/",
        # nothing
        "https://", "https:///path", "//api.example.com/",
    ],
)  # fmt: skip
def test_every_other_host_is_refused(url: str) -> None:
    assert not allows(url)


def test_the_refusal_names_host_and_remedy() -> None:
    with pytest.raises(PermanentError) as caught:
        check_allowed(httpx.URL("http://Evil.com.:8000/x?token=1"), ALLOWED)

    assert str(caught.value) == "host 'evil.com:8000' is not allowed; add it to TASKAPP_HTTP_ALLOWED_HOSTS"


def test_an_empty_list_allows_nothing() -> None:
    with pytest.raises(PermanentError, match="is not allowed"):
        check_allowed(httpx.URL("http://localhost/"), [])


@pytest.mark.parametrize(
    "entry",
    [
        "", "*", "*.", "*:80", "*.*.com", "a.*.com", "api*.com", "http://api.example.com", "api.example.com/v1",
        "me@api.example.com", "api.example.com:", "api.example.com:http", "api.example.com:0", "api.example.com:65536",
        "::1", "[::1", "*.127.0.0.1", "*.0.1", "*.[::1]", "2130706433", "a b.com", "a..com", "-a.com",
    ],
)  # fmt: skip
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(InvalidSetting, match=re.escape(f"setting TASKAPP_HTTP_ALLOWED_HOSTS cannot be {entry!r}: ")):
        AllowedHost.parse(entry)


LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
HOST = st.lists(LABEL, min_size=1, max_size=4).map(".".join)


@given(HOST, HOST)
def test_a_plain_entry_allows_its_host_and_no_other(listed: str, called: str) -> None:
    entry = AllowedHost.parse(listed)

    assert entry.matches("https", canonical_host(called) or "", 443) == (listed == called)


@given(HOST, HOST)
def test_a_wildcard_allows_what_lies_below_and_not_its_own_root(listed: str, called: str) -> None:
    entry = AllowedHost.parse(f"*.{listed}")

    assert entry.matches("https", f"{called}.{listed}", 443)
    assert not entry.matches("https", listed, 443)
    assert not entry.matches("https", f"{called}{listed}", 443) or f"{called}{listed}".endswith(f".{listed}")


@given(st.text())
def test_no_text_is_allowed_that_httpx_would_send_elsewhere(text: str) -> None:
    """The host checked is the host called: both come from the one URL object."""
    try:
        url = httpx.URL(f"https://{text}.shop.example/")
    except httpx.InvalidURL:
        return
    if allows(str(url)):
        assert re.fullmatch(rb"[a-z0-9_.-]+\.shop\.example", url.raw_host.removesuffix(b"."))


@given(st.text() | st.ip_addresses().map(str))
def test_the_canonical_form_is_its_own_canonical_form(text: str) -> None:
    host = canonical_host(text)

    assert host is None or canonical_host(host) == host


# --- the payload -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"url": "ftp://api.example.com"}, "give a URL such as 'https://api.example.com/orders'"),
        ({"url": "/orders"}, "a URL such as"),
        ({"url": "https://a b/"}, "a URL such as"),
        ({"url": "https://a/\r\nX: y"}, "a URL such as"),
        ({"url": "https://a\\@b/"}, "a URL such as"),
        (
            {"url": "https://me:pw@api.example.com/"},
            "a URL must not contain a login; send an 'Authorization' header instead",
        ),
        ({"method": "TRACE"}, "Input should be 'GET'"),
        ({"headers": {"X-A": "b\r\nX-C: d"}}, "the value of header 'X-A' must be one line of ASCII; encode it first"),
        ({"headers": {"X-A": "ü"}}, "must be one line of ASCII"),
        ({"headers": {"X A": "b"}}, "'X A' is not a header name"),
        ({"headers": {"X-A:": "b"}}, "'X-A:' is not a header name"),
        ({"headers": {"": "b"}}, "'' is not a header name"),
        ({"headers": {"hOST": "evil"}}, "header 'hOST' is set from the URL and the body; leave it out"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "leave it out"),
        ({"json_body": {}, "body": "x"}, "a request has only one body; give either 'json_body' or 'body'"),
        ({"body": "a\ud800"}, "the text has a lone surrogate at position 1; remove it"),
        ({"timeout_seconds": 301}, "less than or equal to 300"),
        ({"timeout_seconds": 0}, "greater than 0"),
        ({"max_response_bytes": 0}, "greater than or equal to 1"),
        ({"expected_status": [100]}, "greater than or equal to 200"),
        ({"expected_status": []}, "at least 1 item"),
        ({"verify": False}, "Extra inputs are not permitted"),
    ],
)
def test_a_payload_that_makes_no_request_is_refused(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(problem)):
        HttpRequest.model_validate({"url": "https://api.example.com/", **fields})


def test_secrets_stay_out_of_the_representation() -> None:
    request = HttpRequest(
        url="https://a.example/", headers={"Authorization": "secret"}, params={"k": "secret"}, json_body="secret"
    )

    assert "secret" not in repr(request)


def test_a_payload_survives_its_way_through_json() -> None:
    request = HttpRequest(
        method="post", url="https://a.example/?x=1", params={"n": 1, "b": True, "l": ["a", 2.5]},
        json_body=[{"ü": None}], expected_status=[201],
    )  # fmt: skip

    assert request.method == "POST"
    assert HttpRequest.model_validate(request.model_dump(mode="json")) == request


# --- hops ------------------------------------------------------------------------------------


def first_hop(**fields: object) -> Hop:
    return Hop.first(HttpRequest.model_validate({"url": "https://api.example.com/a?x=1", **fields}), "key-1")


def test_parameters_are_added_to_the_query_of_the_url() -> None:
    assert first_hop(params={"y": [2, "ü&"]}).target == b"/a?x=1&y=2&y=%C3%BC%26"


def test_bodies_are_sent_with_their_type_unless_the_caller_set_one() -> None:
    json_hop, text_hop = first_hop(method="PUT", json_body={"ü": 1}), first_hop(method="PUT", body="ü")
    own_hop = first_hop(method="PUT", body="<x/>", headers={"content-type": "text/xml"})

    assert (json_hop.content, json_hop.headers["content-type"]) == (b'{"\\u00fc": 1}', "application/json")
    assert (text_hop.content, text_hop.headers["content-type"]) == ("ü".encode(), "text/plain; charset=utf-8")
    assert own_hop.headers.get_list("content-type") == ["text/xml"]


def test_only_what_may_do_harm_twice_carries_an_idempotency_key() -> None:
    keys = {
        method: first_hop(method=method).headers.get("idempotency-key") for method in ("GET", "PUT", "POST", "PATCH")
    }

    assert keys == {"GET": None, "PUT": None, "POST": "key-1", "PATCH": "key-1"}
    assert first_hop(method="POST", headers={"idempotency-key": "mine"}).headers["idempotency-key"] == "mine"


def test_the_idempotency_key_belongs_to_the_task() -> None:
    assert idempotency_key("t1") == idempotency_key("t1") != idempotency_key("t2")
    assert re.fullmatch(r"[0-9a-f-]{36}", idempotency_key("ü\r\n"))
    assert idempotency_key(None) != idempotency_key(None)


@pytest.mark.parametrize(
    ("method", "status", "becomes"),
    [
        ("POST", 301, "GET"), ("POST", 302, "GET"), ("POST", 303, "GET"), ("POST", 307, "POST"), ("POST", 308, "POST"),
        ("PUT", 301, "PUT"), ("PUT", 303, "GET"), ("HEAD", 303, "HEAD"), ("GET", 301, "GET"), ("DELETE", 308, "DELETE"),
    ],
)  # fmt: skip
def test_a_redirect_keeps_or_changes_the_method_as_the_standard_says(method: str, status: int, becomes: str) -> None:
    hop = first_hop(method=method, body="x").redirected(status, "/b")

    assert (hop.method, str(hop.url)) == (becomes, "https://api.example.com/b")
    assert (hop.content is None) == (becomes == "GET" != method)
    assert ("content-type" in hop.headers) == (hop.content is not None)


@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("https://api.example.com/b", True),
        ("https://api.example.com:443/b", True),
        ("//API.example.com/b", True),
        ("https://api.example.com:8443/b", False),
        ("https://other.example.com/b", False),
    ],
)
def test_secrets_do_not_follow_to_another_origin(location: str, kept: bool) -> None:
    secrets = {"Authorization": "s", "Cookie": "s", "X-Api-Key": "s"}

    hop = first_hop(method="POST", headers={**secrets, "Accept": "text/csv"}).redirected(307, location)

    assert [name for name in secrets if name in hop.headers] == (list(secrets) if kept else [])
    assert (hop.headers["accept"], hop.headers["idempotency-key"]) == ("text/csv", "key-1")


def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    with pytest.raises(PermanentError, match="redirects from https to http, which is not allowed"):
        first_hop().redirected(302, "http://api.example.com/")


# --- Retry-After -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0), ("1", 1), (" 120 ", 120), ("3600", 3_600), ("3601", 3_600), ("9" * 30, 3_600), ("9" * 5_000, 3_600),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(days=9), usegmt=True), 0),
        ("Tue, 03 Feb 2026 04:05:16 -0000", 10), ("Fri, 31 Dec 9999 23:59:59 GMT", 3_600),
        (None, None), ("", None), ("-1", None), ("1.5", None), ("soon", None), ("1e3", None), ("٣", None),
        ("Tue, 99 Feb 2026 04:05:16 GMT", None), ("Tue, 03 Feb 2026 04:05:16 +9999999999", None), ("1, 2", None),
    ],
)  # fmt: skip
def test_retry_after_is_read(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW) == seconds


@given(st.text() | st.from_regex(r"\w{3}, \d{1,2} \w{3} \d{1,5} \d\d:\d\d:\d\d [-+A-Z0-9]{1,6}", fullmatch=True))
def test_no_retry_after_makes_a_task_wait_for_ever_or_fail(value: str) -> None:
    seconds = retry_after_seconds(value, NOW)

    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS


# --- targets: byte for byte ---------------------------------------------------------------------------

SIGNED = "/a%2Fb/%7Ec/../d//e;v=1?X-Sig=a%2Fb~c%20d+e&e=*!()',;:@$&&k&=v&[1]={2}|^\\\"%zz%ff?/"


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        (SIGNED, SIGNED), ("", "/"), ("?a=b", "/?a=b"), ("?", "/?"), ("/a?", "/a?"), ("/a?b#c?d", "/a?b"),
        ("/ä?ö=ü", "/%C3%A4?%C3%B6=%C3%BC"), ("/../..", "/../.."),
    ],
)  # fmt: skip
def test_the_target_is_that_of_the_url_byte_for_byte(rest: str, target: str) -> None:
    hop = first_hop(url=f"https://API.example.com{rest}")

    assert hop.target == target.encode()
    assert hop.url.host == "api.example.com"


@pytest.mark.parametrize(
    ("rest", "target"), [("/a", "/a?y=2"), ("/a?x=~%7E", "/a?x=~%7E&y=2"), ("/a?", "/a?y=2"), ("/a?x&", "/a?x&y=2")]
)
def test_parameters_leave_the_query_that_is_there_as_it_is(rest: str, target: str) -> None:
    assert first_hop(url=f"https://api.example.com{rest}", params={"y": 2}).target == target.encode()


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (f"https://other.example{SIGNED}", SIGNED), (f"//other.example{SIGNED}", SIGNED), (SIGNED, SIGNED),
        ("?sig=%7e~*", "/deep//%7ea?sig=%7e~*"), ("b?sig=%7e~*#x", "/deep/b?sig=%7e~*"), ("../../b c", "/b%20c"),
        ("", "/deep//%7ea?x=1"), ("#x", "/deep//%7ea?x=1"),
    ],
)  # fmt: skip
def test_a_redirect_is_followed_byte_for_byte(location: str, target: str) -> None:
    hop = first_hop(url="https://api.example.com/deep//%7ea?x=1").redirected(307, location)

    assert hop.target == target.encode()


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#")))
def test_whatever_a_url_holds_goes_out_as_it_is(rest: str) -> None:
    assert target_of(f"https://api.example.com/{rest}", httpx.URL("https://api.example.com/")) == f"/{rest}".encode()


# --- gzip, chunk by chunk ---------------------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    st.integers(1, 50),
    st.sampled_from([b"", b"x", b"\x1f", b"\0" * 9]),
)
def test_gzip_is_unpacked_however_it_is_cut(members: list[bytes], size: int, behind: bytes) -> None:
    packed = b"".join(map(gzip.compress, members)) + behind
    unpacked = Gunzip()

    content = b"".join(unpacked.read(packed[start : start + size], 10_000) for start in range(0, len(packed), size))

    assert content == b"".join(members)
    assert not unpacked.is_within_a_member
    assert unpacked.is_over == (behind not in (b"", b"\x1f"))


def test_what_stands_behind_a_gzip_is_neither_kept_nor_read() -> None:
    unpacked = Gunzip()
    assert unpacked.read(gzip.compress(b"hi") + b"x" * 100_000, 1_000) == b"hi"

    assert unpacked.is_over
    assert unpacked.read(b"x" * 100_000, 998) == b""
    assert unpacked._held == b""


def test_members_of_a_gzip_are_bounded() -> None:
    unpacked = Gunzip()

    assert unpacked.read(gzip.compress(b"") * 5_000 + gzip.compress(b"end"), 1_000) == b""
    assert unpacked.is_over
