"""Peak memory of ``data_processing`` on a large CSV: must stay below 256 MB whatever the size.

    .venv/bin/python benchmarks/data_processing_memory.py --gib 1

Writes the file to a temporary folder, runs the task as a function in a child process, and
prints the child's peak resident memory and its run time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_MB = 256
BLOCK_ROWS = 50_000


def write(path: Path, size_bytes: int) -> int:
    """Write rows of varied values until the file has ``size_bytes``; return how many."""
    rng = random.Random(2013)
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("carrier,origin,hour,delay,tail,note\n")
        while file.tell() < size_bytes:
            file.writelines(
                f"C{rng.randrange(16)},A{rng.randrange(300)},{rng.randrange(24)},{rng.randrange(-20, 600)},"
                f"N{rng.randrange(100_000)},some text that makes the row as long as rows are\n"
                for _ in range(BLOCK_ROWS)
            )
            rows += BLOCK_ROWS
    return rows


def child(path: str) -> None:
    from taskapp.tasks import data_processing

    started = time.monotonic()
    result = data_processing(
        {
            "path": path,
            "group_by": ["carrier", "origin"],
            "measures": [
                {"name": "rows", "function": "count"},
                {"name": "mean", "function": "mean", "column": "delay"},
                {"name": "tails", "function": "distinct", "column": "tail"},
            ],
        }
    )
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak": peak_mb, "rows": result["rows_read"], "seconds": time.monotonic() - started}))


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--gib", type=float, default=1.0)
    arguments.add_argument("--child")
    options = arguments.parse_args()
    if options.child:
        child(options.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.csv")
        rows = write(path, int(options.gib * 2**30))
        environment = {**os.environ, "TASKAPP_ENV_FILE": "", "TASKAPP_DATA_DIR": folder, "TASKAPP_FILE_DIRS": folder}
        done = subprocess.run(
            [sys.executable, __file__, "--child", str(path)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        seen = json.loads(done.stdout)
        assert seen["rows"] == rows, (seen, rows)
        size_mb = path.stat().st_size / 2**20
    print(f"{size_mb:,.0f} MiB, {rows:,} rows: peak {seen['peak']:.0f} MB, {seen['seconds']:.1f} s")
    sys.exit(seen["peak"] >= LIMIT_MB)


if __name__ == "__main__":
    main()
