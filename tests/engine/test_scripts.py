"""Scripts are read in any process at any time."""

from __future__ import annotations

import subprocess
import sys

READING = """
import sys
import taskapp.redis.scripts
from taskapp.redis.scripts import Script
before = set(sys.modules)
for _ in range(2):
    Script("settle")
print(sorted(set(sys.modules) - before))
"""


def test_reading_a_script_imports_nothing() -> None:
    # Threads read scripts: a child that is forked while one imports something waits for that import forever.
    done = subprocess.run([sys.executable, "-c", READING], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


WITHOUT_FILES = """
import taskapp.redis.scripts
from pathlib import Path
from taskapp.redis.scripts import LANES, PRELUDE, ROOMS, read_scripts, script
names = {
    package: [path.stem for path in (ROOMS / package / "lua").glob("*.lua") if path.name not in (PRELUDE, *LANES)]
    for package in ("engine", "results")
}
read_scripts(*names)
def refuse(path):
    raise OSError(24, "Too many open files")
Path.read_text = refuse
for name in names["engine"]:
    script(name, ROOMS)
for name in names["results"]:
    script(f"results/{name}", ROOMS)
print(len(names["engine"]) > 20)
"""


def test_scripts_read_beforehand_need_no_file_later() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FILES], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
