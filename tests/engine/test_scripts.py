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
