from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.type_checks.site import Site, build_wheel


@pytest.fixture(scope="session")
def site_named(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Site]:
    """Return the environment ``with celery-types`` or ``without celery-types``."""
    wheel = build_wheel(tmp_path_factory.mktemp("wheel"))

    @cache
    def made(name: str) -> Site:
        directory: Path = tmp_path_factory.mktemp("site")
        return Site(directory, wheel, has_celery_types=name.startswith("with "))

    return made
