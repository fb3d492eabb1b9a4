"""A virtual environment for each framework, from the pinned versions in ``peers/<framework>.txt``.

They are stored in the user's cache folder, and recreated when the file or the version of Python changes.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from platformdirs import user_cache_path

from benchmarks.processes import BrokenOff

PEERS = Path(__file__).parent / "peers"
STAMP = "complete"


def python_of(framework: str, cache: Path | None = None) -> Path:
    """Return the interpreter with ``framework``; install it first if necessary.

    Raises:
        BrokenOff: It cannot be installed.
    """
    requirements = PEERS / f"{framework}.txt"
    if not requirements.exists():
        return Path(sys.executable)
    wanted = hashlib.sha256(requirements.read_bytes() + platform.python_version().encode()).hexdigest()[:12]
    folder = (cache or user_cache_path("taskapp", appauthor=False) / "benchmarks") / f"{framework}-{wanted}"
    if not (folder / STAMP).exists():
        _make(folder, requirements)
    return folder / "bin" / "python"


def _make(folder: Path, requirements: Path) -> None:
    print(f"installing {requirements.name} into {folder} …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    python = str(folder / "bin" / "python")
    _run([sys.executable, "-m", "venv", str(folder)])
    if uv := shutil.which("uv"):
        _run([uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "-r", str(requirements)])
    else:
        _run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(requirements)])
    (folder / STAMP).touch()


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise BrokenOff(f"{' '.join(argv)} failed: {done.stderr.strip() or done.stdout.strip()}")


def versions(framework: str) -> str:
    """Return the pinned versions of the framework and of its client library: ``saq 0.26.4, redis 7.4.1``."""
    requirements = PEERS / f"{framework}.txt"
    if not requirements.exists():
        return ", ".join(f"{name} {metadata.version(name)}" for name in (framework, "celery", "redis"))
    direct = requirements.read_text().partition("#")[0].split()
    return ", ".join(pin.replace("==", " ") for pin in direct)
