"""``make tables`` writes the tables that documents repeat from the code, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", ".env.example", "docs/metrics.md", "docs/alerts.md")
READ = ("scripts/tables.py", "taskapp/settings.py", "deploy/prometheus/rules")


def test_tables_are_written_and_what_is_around_them_stays(tmp_path: Path) -> None:
    for name in (*DOCUMENTS, *READ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    readme = tmp_path / "README.md"
    readme.write_text(re.sub(r"(?m)^(\| `TASKAPP_LEASE_SECONDS` ).*", r"\1| 1 | Outdated. |", readme.read_text()))
    assert "Outdated" in readme.read_text()

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "scripts/tables.py"], cwd=tmp_path, env=env, check=True)

    assert {name: (tmp_path / name).read_text() for name in DOCUMENTS} == {
        name: (ROOT / name).read_text() for name in DOCUMENTS
    }
