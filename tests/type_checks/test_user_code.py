"""User code in ``user_code``: each line has the errors that its comment names, and no others.

``# E: arg-type reportArgumentType`` names codes of mypy, in small letters, and of pyright. ``# E without: …`` is meant
for an environment without ``celery-types``, ``# E with: …`` for one with it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.type_checks.site import Problems, Site, codes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
CODE = Path(__file__).parent / "user_code"
EXPECTED = re.compile(r"# E(?P<site> with| without)?: (?P<codes>[\w -]+)")


@pytest.fixture
def user_code(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CODE, tmp_path / "user_code", ignore=shutil.ignore_patterns("__pycache__")))


def expected(directory: Path, site: str, tool: str) -> dict[tuple[str, int], set[str]]:
    found: dict[tuple[str, int], set[str]] = {}
    for file in sorted(directory.glob("*.py")):
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            for comment in EXPECTED.finditer(line):
                named = {code for code in comment["codes"].split() if code.startswith("report") == (tool == "pyright")}
                if named and (comment["site"] is None or comment["site"].strip() == site.split()[0]):
                    found.setdefault((file.name, number), set()).update(named)
    return found


@pytest.mark.parametrize("tool", ["mypy", "pyright"])
@pytest.mark.parametrize("site", ["with celery-types", "without celery-types"])
def test_each_line_has_the_errors_that_it_names(
    user_code: Path, site_named: Callable[[str], Site], site: str, tool: str
) -> None:
    problems = getattr(site_named(site), tool)(user_code)

    if lines := differences(expected(user_code, site, tool), problems):
        pytest.fail("\n".join(lines), pytrace=False)


def differences(wanted: dict[tuple[str, int], set[str]], problems: Problems) -> list[str]:
    found = codes(problems)
    lines = []
    for where in sorted(wanted.keys() | found.keys()):
        place, named = f"{where[0]}:{where[1]}", wanted.get(where, set())
        lines += [f"{place}: no {code}" for code in sorted(named - found.get(where, set()))]
        lines += [f"{place}: {text}" for text in problems.get(where, []) if text.partition(":")[0] not in named]
    return lines


def test_the_code_has_errors_of_both_tools() -> None:
    for tool in ("mypy", "pyright"):
        assert len(expected(CODE, "with celery-types", tool)) > 40
