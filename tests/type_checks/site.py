"""Environments of users, with and without ``celery-types``, and what the type checkers say of code in them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections import defaultdict
from importlib.metadata import files
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = Path(sysconfig.get_paths()["purelib"])
OURS = re.compile(r"taskapp|_editable|__editable")
OF_MYPY = re.compile(r"^(?P<file>[^:\n]+):(?P<line>\d+): error: (?P<text>.*)  \[(?P<code>[\w-]+)\]$", re.MULTILINE)

Problems = dict[tuple[str, int], list[str]]
"""File and line to what is wrong there: ``code: text``."""


class Site:
    """A virtual environment with taskapp as its wheel installs it, and everything that is installed here."""

    def __init__(self, directory: Path, wheel: Path, *, has_celery_types: bool) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
        self._python = directory / "bin/python"
        self._cache = directory / "mypy"
        packages = next(directory.glob("lib/python*/site-packages"))
        left_out = set() if has_celery_types else {str(file).split("/")[0] for file in files("celery-types") or ()}
        for each in PACKAGES.iterdir():
            if not OURS.match(each.name) and each.name not in left_out:
                (packages / each.name).symlink_to(each)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)

    def mypy(self, directory: Path, *options: str) -> Problems:
        """Check the modules in ``directory`` with ``mypy --strict``."""
        printed = _run(
            directory, "mypy", "--strict", "--config-file", "", "--python-executable", str(self._python),
            "--cache-dir", str(self._cache), "--no-error-summary", "--hide-error-context", *options, ".",
        )  # fmt: skip
        problems: Problems = defaultdict(list)
        for found in OF_MYPY.finditer(printed):
            problems[found["file"], int(found["line"])].append(f"{found['code']}: {found['text']}")
        assert printed.count(": error:") == sum(map(len, problems.values())), printed
        return problems

    def pyright(self, directory: Path) -> Problems:
        """Check the modules in ``directory`` with pyright."""
        (directory / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "standard"}))
        printed = _run(directory, "pyright", "--pythonpath", str(self._python), "--outputjson")
        problems: Problems = defaultdict(list)
        for found in json.loads(printed)["generalDiagnostics"]:
            if found["severity"] == "error":
                name = str(Path(found["file"]).relative_to(directory.resolve()))
                where = name, found["range"]["start"]["line"] + 1
                problems[where].append(f"{found.get('rule', 'syntax')}: {found['message']}")
        return problems


def _run(directory: Path, *command: str) -> str:
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "MYPYPATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=directory, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def build_wheel(directory: Path) -> Path:
    """Build taskapp's wheel in ``directory``."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(directory.glob("*.whl"))


def codes(problems: Problems) -> dict[tuple[str, int], set[str]]:
    """Return the codes alone."""
    return {where: {text.partition(":")[0] for text in texts} for where, texts in problems.items()}
