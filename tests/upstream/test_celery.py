"""Celery's own integration suite on taskapp: a sample each time, all of it in ``make test-all``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.upstream.celery_suite import CELERY
from tests.upstream.suites import run

SAMPLE = 32
CANVAS = "t/integration/test_canvas.py"


@pytest.mark.timeout(900)
def test_a_sample_of_them_passes(unpacked: Callable[[str], None], variables: dict[str, str], tmp_path: Path) -> None:
    unpacked("celery")
    done = run(CELERY, tmp_path, each=SAMPLE, **variables)

    assert not done.failed(), done.output


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("tests", [(CANVAS,), (CELERY.folder, "--ignore", CANVAS)], ids=["canvas", "the others"])
def test_they_pass(
    unpacked: Callable[[str], None], variables: dict[str, str], tmp_path: Path, tests: tuple[str, ...]
) -> None:
    unpacked("celery")
    done = run(CELERY, tmp_path, *tests, **variables)

    assert not done.failed(), done.output
