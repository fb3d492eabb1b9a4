"""The state machine must find what it is there for: each of these breaks one line of a script."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from taskapp.engine import node
from taskapp.redis.link import Link
from tests.engine.mutations import MUTATIONS, Mutation, copy_scripts
from tests.engine.test_state_machine import run_machine
from tests.support import RedisServer

EXAMPLES = 2_000
"""Histories after which a broken line counts as not found; most are found within ten."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_state_machine_finds_out_when(
    mutation: Mutation, server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: None
) -> None:
    copy_scripts(tmp_path, mutation)
    monkeypatch.setattr(node, "Link", partial(Link, rooms=tmp_path))
    with pytest.raises(Exception):  # noqa: B017 - whatever shows the difference first
        run_machine(server, EXAMPLES, tmp_path, shrink=False)


def test_the_state_machine_is_content_with_a_copy_that_breaks_nothing(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_scripts(tmp_path, Mutation("nothing", "claim", "local", "local"))
    monkeypatch.setattr(node, "Link", partial(Link, rooms=tmp_path))
    run_machine(server, 20, tmp_path)
