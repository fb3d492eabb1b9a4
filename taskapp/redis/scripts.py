"""Lua scripts: one file per operation, in the folder ``lua`` next to the modules that run it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from taskapp.redis.keys import lua_names

ENGINE = "engine"
PRELUDE = "prelude.lua"
LANES = ("limits.lua", "lanes.lua", "budgets.lua", "circuits.lua", "turns.lua")
"""Parts of the prelude that a script runs only when it meets a message with limits: Lua makes their functions then."""
# Not with ``importlib.resources``, whose first call imports modules: a child forked while a thread does that would wait
# forever for the lock of that import.
ROOMS = Path(__file__).parent.parent

SHEBANG = "#!lua flags=allow-oom\n"
FREEING_WRITE = "redis.call('DEL', KEYS_PREFIX .. 'taskapp:none')\n"
"""Redis 6.2 knows no flags; it refuses memory only to scripts that have not written anything yet."""


CALL_LANES = """local loaded
lanes = function()
  loaded = loaded or load_lanes()
  return loaded
end
"""


class Script:
    """One operation on the server.

    Scripts of a folder share its ``prelude.lua``; a folder without one shares the engine's. ``ARGV[1]`` is the key
    prefix. A script that begins with the shebang may use memory when Redis is full.

    Args:
        name: File name without ``.lua``, with its package in front unless that is the engine: ``schedules/tick``.
        rooms: The folder that contains the packages.
    """

    def __init__(self, name: str, rooms: Path = ROOMS) -> None:
        room, _, file = name.rpartition("/")
        folder = rooms / (room or ENGINE) / "lua"
        source = (folder / f"{file}.lua").read_text()
        self.frees = source.startswith(SHEBANG)
        prelude = _prelude(folder, rooms)
        lanes = _lanes(rooms) if "local lanes\n" in prelude else ""
        own = source.removeprefix(SHEBANG)
        names = "local KEYS_PREFIX = ARGV[1]\n" + lua_names(prelude + own)
        body = prelude + lanes + own
        self._modern = _Source((SHEBANG if self.frees else "") + names + body)
        self._old = _Source(names + FREEING_WRITE + body) if self.frees else None

    def source(self, *, modern: bool) -> _Source:
        """Return the text and its digest, for Redis 7 or newer (``modern``) or for 6.2."""
        return self._modern if modern or self._old is None else self._old


class _Source:
    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


@cache
def _prelude(folder: Path, rooms: Path) -> str:
    """Return what the scripts in ``folder`` share."""
    prelude = folder / PRELUDE
    if not prelude.exists():
        prelude = rooms / ENGINE / "lua" / PRELUDE
    return prelude.read_text()


@cache
def _lanes(rooms: Path) -> str:
    """Return the definition of the function ``lanes``, which the prelude declares."""
    body = "".join((rooms / ENGINE / "lua" / name).read_text() for name in LANES)
    return f"local function load_lanes()\n{lua_names(body)}{body}end\n{CALL_LANES}"


@cache
def script(name: str, rooms: Path = ROOMS) -> Script:
    """Return the script ``name``, read once."""
    return Script(name, rooms)


def read_scripts(*packages: str) -> None:
    """Read every script of ``packages`` now: later, this process may have no free file descriptor to read them with."""
    for package in packages:
        for path in (ROOMS / package / "lua").glob("*.lua"):
            if path.name not in (PRELUDE, *LANES):
                # ``ROOMS``, too: the cache tells calls with it from calls without it.
                script(path.stem if package == ENGINE else f"{package}/{path.stem}", ROOMS)
