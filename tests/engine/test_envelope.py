"""The header: what is sealed comes back, and Lua reads it as Python does."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from taskapp.engine.envelope import LONGEST_NAME_BYTES, PLAIN, seal, unseal
from tests.engine.bench import Bench
from tests.support import examples

names = st.text(max_size=60)
bodies = st.binary(max_size=200)


@given(name=names, task=names, priority=st.integers(0, 9), body=bodies)
def test_what_is_sealed_comes_back_as_it_was(name: str, task: str, priority: int, body: bytes) -> None:
    assume(all(len(each.encode(errors="replace")) <= LONGEST_NAME_BYTES for each in (name, task)))

    envelope = unseal(seal(name, task, priority, body))

    assert envelope == (name, task, priority, 0, 0, body, PLAIN)


@given(blob=st.one_of(bodies, bodies.map(lambda body: b"\1" + body), bodies.map(lambda body: b"\2" + body)))
def test_any_bytes_can_be_unsealed(blob: bytes) -> None:
    envelope = unseal(blob)

    assert blob.endswith(envelope.body)
    if envelope.version == 0:
        assert envelope.body == blob


@pytest.mark.parametrize("length", range(len(seal("id", "shop.mail", 3, b""))))
def test_a_header_that_was_cut_short_is_no_header(length: int) -> None:
    blob = seal("id", "shop.mail", 3, b"")[:length]

    assert unseal(blob).version == 0
    assert unseal(blob).body == blob


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 128])
def test_a_name_that_does_not_fit_is_refused(name: str) -> None:
    for arguments in ((name, "task"), ("id", name)):
        with pytest.raises(ValueError, match=r"is longer than 255 bytes; choose a shorter name or id"):
            seal(*arguments, 0, b"")
    assert unseal(seal("x" * 255, "ü" * 127, 0, b"")).id == "x" * 255


@pytest.mark.parametrize("priority", [-1, 10])
def test_a_priority_that_no_queue_has_is_refused(priority: int) -> None:
    with pytest.raises(ValueError, match=rf"priority {priority} is not between 0 and 9"):
        seal("id", "task", priority, b"")


@settings(max_examples=examples(80), deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(name=names, task=names, priority=st.integers(0, 9), body=bodies)
def test_the_server_counts_in_the_header_and_leaves_the_rest(
    bench: Bench, name: str, task: str, priority: int, body: bytes
) -> None:
    bench.client.flushdb()
    bench.push_bytes(seal(name, task, priority, body), priority=priority)
    node = bench.node()

    node.give_back([node.take()[0].tag], "retry")
    node.done()
    node.give_back([node.take()[0].tag], "crashed")
    node.done()

    [message] = node.take()
    assert message.envelope == (name, task, priority, 2, 1, body, PLAIN)
    node.die()


def test_counts_stop_at_what_the_header_can_hold(bench: Bench) -> None:
    blob = seal("id", "task", 0, b"body")
    bench.push_bytes(blob[:2] + b"\xff\xff\xff\xff" + blob[6:])
    node = bench.node()

    node.give_back([node.take()[0].tag], "retry")
    node.done()

    [message] = node.take()
    assert message.envelope == ("id", "task", 0, 65_535, 65_535, b"body", PLAIN)
