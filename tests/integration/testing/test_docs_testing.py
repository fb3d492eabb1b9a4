"""The examples of docs/testing.md are a project whose tests pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support import clean_environment

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/testing.md"
FILES = re.compile(r"^```\w+\n# (?P<path>[\w/.]+)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_examples_pass(tmp_path: Path) -> None:
    files = {match["path"]: match["content"] for match in FILES.finditer(PAGE.read_text())}
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    (tmp_path / "proj/__init__.py").touch()

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "taskapp.testing.plugin", "tests"],
        cwd=tmp_path, capture_output=True, text=True, timeout=110,
        env=clean_environment() | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert len([name for name in files if name.startswith("tests/")]) == 5
    assert re.search(r"\b10 passed", done.stdout), done.stdout
