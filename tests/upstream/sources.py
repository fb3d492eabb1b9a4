"""Source distributions of the installed versions, downloaded once and kept in ``build/upstream``."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

KEPT_IN = Path(__file__).parents[2] / "build" / "upstream"


class NoSource(Exception):
    """The source distribution cannot be downloaded; says why."""


def source(package: str) -> Path:
    """Return the folder of ``package``'s source distribution, of the version that is installed.

    Raises:
        NoSource: The package index does not give it to us.
    """
    name = f"{package}-{version(package)}"
    KEPT_IN.mkdir(parents=True, exist_ok=True)
    with (KEPT_IN / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (KEPT_IN / name).exists():
            _download(package, name)
    return KEPT_IN / name


def _download(package: str, name: str) -> None:
    with TemporaryDirectory(dir=KEPT_IN) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        argv = [*pip, "--no-binary", ":all:", "--no-build-isolation", "-d", folder, name.replace("-", "==")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
        archives = list(Path(folder).glob("*.tar.gz"))
        if done.returncode or not archives:
            raise NoSource(f"pip cannot download {name}: {(done.stderr.strip() or 'no archive').splitlines()[-1]}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(Path(folder, "unpacked"), filter="data")
        shutil.move(Path(folder, "unpacked", name), KEPT_IN / name)
