"""The same scenarios in the testing kit and on a real node end the same way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TimeoutError as ResultTimeoutError
from celery.result import GroupResult, ResultSet

from taskapp.testing import RealWorker, in_process, real_worker
from tests.integration.testing import compared
from tests.support import eventually

IDS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def outcome(result: Any) -> Any:
    """What a caller learns of a result: states, values, errors, children."""
    if isinstance(result, GroupResult | ResultSet):
        return [outcome(each) for each in result.results]
    value = result.result
    shown = (type(value).__name__, IDS.sub("<id>", str(value))) if isinstance(value, BaseException) else value
    children = len(result.children or ())
    return result.state, shown, children, bool(result.traceback)


def lines(path: Path, name: str) -> list[str]:
    written = path.read_text().splitlines() if path.exists() else []
    return written if name == "order_of_runs" else sorted(written)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealWorker]:
    with real_worker(compared.app, tmp_path_factory.mktemp("node"), "-c", "1") as worker:
        yield worker


def on_the_node(name: str, path: Path) -> tuple[dict[str, Any], list[str]]:
    gate = path.with_suffix(".gate")
    held = compared.hold.apply_async((str(gate),), queue="first", priority=9)
    eventually(lambda: held.state == "STARTED", within_seconds=20)
    results = compared.SCENARIOS[name](str(path))
    gate.touch()
    if name in compared.NEVER_READY:
        compared.add.apply_async((1, 1), queue="low").get(timeout=20)
    else:
        eventually(lambda: all(each.ready() for each in results.values()), within_seconds=40)
    eventually(lambda: len(lines(path, name)) == compared.LINES.get(name, 0), within_seconds=20)
    return {key: outcome(result) for key, result in results.items()}, lines(path, name)


def in_the_kit(name: str, path: Path) -> tuple[dict[str, Any], list[str]]:
    with in_process(compared.app) as tasks:
        results = compared.SCENARIOS[name](str(path))
        tasks.advance("10s", keep_failures=True)
        assert not tasks.waiting
        return {key: outcome(result) for key, result in results.items()}, lines(path, name)


@pytest.mark.parametrize("name", compared.SCENARIOS)
def test_a_scenario_ends_in_the_kit_as_on_a_node(node: RealWorker, name: str, tmp_path: Path) -> None:
    kit = in_the_kit(name, tmp_path / "kit")
    real = on_the_node(name, tmp_path / "node")

    assert kit == real


def test_waiting_differs_only_in_what_is_not_due(node: RealWorker) -> None:
    with in_process(compared.app), pytest.raises(ResultTimeoutError):
        compared.add.apply_async((1, 1), countdown=60).get(timeout=0.1)
    with pytest.raises(ResultTimeoutError):
        compared.add.apply_async((1, 1), countdown=60).get(timeout=0.1)
