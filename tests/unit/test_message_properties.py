"""What a message may say of its own properties: whatever it is, it is taken or refused."""

from __future__ import annotations

from contextlib import suppress
from math import isfinite
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskapp.client import protocol
from taskapp.engine.headers import PROPERTIES
from taskapp.transport.codec import (
    PROPERTIES_HEADER,
    SENT_AT_HEADER,
    carried_properties,
    claim_by,
    with_properties,
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.from_regex(r"\A\d+\Z"),
    lambda more: st.lists(more, max_size=3) | st.dictionaries(st.text() | st.integers(), more, max_size=3),
    max_leaves=5,
)


@given(ANYTHING | st.dictionaries(st.sampled_from(sorted(PROPERTIES)) | st.text(), ANYTHING))
def test_what_a_message_says_is_taken_or_refused(header: Any) -> None:
    headers = {PROPERTIES_HEADER: header, SENT_AT_HEADER: 1_000.0}
    with suppress(ValueError):  # what buries the message
        until = claim_by(headers, None, carried_properties(headers))
        assert until is None or isfinite(until)


@given(
    st.dictionaries(st.sampled_from(["message_id", "app_id", "user_id", "type", "cluster_id"]), ANYTHING),
    st.none() | st.integers(0, 10**9) | st.floats(0, 10**9),
    st.none() | st.integers(0, 2**39),
)
def test_what_is_submitted_is_taken(texts: dict[str, Any], expiration: float | None, timestamp: int | None) -> None:
    options = {**texts, "expiration": expiration, "timestamp": timestamp}

    headers = with_properties({}, protocol.as_sent(protocol.properties("shop.pay", options)))

    if headers:
        carried = carried_properties(headers)
        assert set(carried) == {name for name, value in options.items() if value is not None}
        assert expiration is None or carried["expiration"] == str(int(expiration * 1_000))


def test_a_stamp_is_no_property() -> None:
    assert protocol.properties("shop.pay", {"stamped_headers": ["type"], "type": "gold", "app_id": "shop"}) == {
        "app_id": "shop"
    }


@pytest.mark.parametrize(("eta", "until"), [(None, 1_005.0), ("1970-01-01T00:20:00+00:00", 1_205.0)])
def test_an_expiration_counts_from_when_the_task_may_be_claimed(eta: str | None, until: float) -> None:
    assert claim_by({SENT_AT_HEADER: 1_000.0}, eta, {"expiration": "5000"}) == until
    assert claim_by({}, eta, {"expiration": "5000"}) is None
