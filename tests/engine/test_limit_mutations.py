"""The machine of limits must find what it is there for: each of these breaks one line of a script."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from taskapp.engine import node
from taskapp.redis.link import Link
from tests.engine.limit_mutations import LIMIT_MUTATIONS
from tests.engine.mutations import Mutation, copy_scripts
from tests.engine.test_limits_machine import run_machine
from tests.support import RedisServer

EXAMPLES = 400
"""Histories after which a broken line counts as not found; most are found within ten."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", LIMIT_MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_machine_of_limits_finds_out_when(
    mutation: Mutation, server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: None
) -> None:
    copy_scripts(tmp_path, mutation)
    monkeypatch.setattr(node, "Link", partial(Link, rooms=tmp_path))
    with pytest.raises(Exception):  # noqa: B017 - whatever shows the difference first
        run_machine(server, EXAMPLES, tmp_path, shrink=False)


@pytest.mark.parametrize("mutation", LIMIT_MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_the_mutations_of_limits_break_is_there(mutation: Mutation, tmp_path: Path) -> None:
    copy_scripts(tmp_path / "mutant", mutation)
