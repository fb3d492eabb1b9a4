"""Unpacking is bounded, whatever the method and however small what is unpacked."""

from __future__ import annotations

import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import compression

from taskapp.transport.unpacking import CannotUnpack, unpacked

METHODS = sorted(compression.encoders())
MOST = 1_000_000


@pytest.mark.parametrize("method", METHODS)
def test_what_becomes_too_large_is_refused_without_being_made(method: str) -> None:
    packed, _ = compression.compress(b"a" * 80 * MOST, method)
    tracemalloc.start()
    try:
        with pytest.raises(CannotUnpack, match="TASKAPP_MAX_UNPACKED_BYTES"):
            unpacked(packed, method, MOST)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 40 * MOST


@given(content=st.binary(max_size=2_000), method=st.sampled_from(METHODS), spare=st.sampled_from([-1, 0, 1]))
def test_it_is_what_kombu_makes_of_it_up_to_the_limit(content: bytes, method: str, spare: int) -> None:
    packed, _ = compression.compress(content, method)

    if spare < 0 and content:
        with pytest.raises(CannotUnpack):
            unpacked(packed, method, len(content) - 1)
    else:
        assert (
            unpacked(packed, method, len(content) + max(spare, 0)) == content == compression.decompress(packed, method)
        )


@given(data=st.binary(max_size=200), method=st.sampled_from([*METHODS, "gzip", "lzma", "none", "", None, 7, (), []]))
def test_nothing_else_is_raised_for_what_nobody_compressed(data: bytes, method: object) -> None:
    with suppress(CannotUnpack):
        assert len(unpacked(data, method, MOST)) <= MOST


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", [lambda packed: packed[:-3], lambda packed: packed + b"more"], ids=["cut", "more"])
def test_what_is_cut_off_or_goes_on_is_refused(method: str, change: object) -> None:
    packed, _ = compression.compress(b"content" * 10, method)

    with pytest.raises(CannotUnpack):
        unpacked(change(packed), method, MOST)  # type: ignore[operator]


def test_kombu_has_the_methods_these_tests_mean() -> None:
    assert {"application/x-gzip", "application/x-bz2", "application/x-lzma"} <= set(METHODS)
    assert compression.get_decoder("gzip") is zlib.decompress
