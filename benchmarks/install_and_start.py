"""What an install of taskapp takes on disk, and how long it takes to start, compared with stock Celery.

    python -m benchmarks.install_and_start [--rounds 15] [--node-rounds 5] [--folder FOLDER] [--no-write]

Each install is a fresh virtual environment, made by ``python -m venv`` and ``pip install``. Starts are fresh processes,
stock Celery and taskapp in turns, and figures are medians. Stock Celery is measured in an environment of its own; the
node also next to taskapp's, for ``celery`` loads Flower wherever that is installed. The tables are printed and written
to ``install_and_start.md`` here, which ``python -m benchmarks --report`` puts into ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from benchmarks.processes import Process
from benchmarks.servers import RedisStore
from benchmarks.tables import TIMES

ROOT = Path(__file__).parent.parent
PATH = Path(__file__).with_name("install_and_start.md")
STOCK = f"celery[redis]=={metadata.version('celery')}"
NOT_COUNTED = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")
"""What every virtual environment of Python 3.11 has, by how the names begin."""
READY_SECONDS = 60.0
LOOK_SECONDS = 0.002
STOPWATCH = """
import os, sys, time
silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (1, 2)]
began = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, used = os.wait4(pid, 0)
print(time.perf_counter() - began, used.ru_maxrss / 1_024, status)
"""
"""Runs a program; small itself, for a child's peak of memory is at least its parent's."""
STOCK_APP = """
from celery import Celery
app = Celery("stock", broker={url!r}, backend={url!r})
app.conf.broker_connection_retry_on_startup = True
@app.task(name="stock.mark")
def mark(path):
    open(path, "w").close()
"""
OUR_TASKS = """
import taskapp.celery
from celery import shared_task
@shared_task(name="ours.mark")
def mark(path):
    open(path, "w").close()
"""


@dataclass
class Install:
    """A virtual environment and what was installed into it."""

    name: str
    folder: Path
    requirement: str

    @classmethod
    def make(cls, name: str, requirement: str, parent: Path) -> Install:
        made = cls(name, parent / (name.replace(",", "-") or "default"), requirement)
        stamp = made.folder / "complete"
        if not stamp.exists():
            print(f"installing {requirement} …", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, "-m", "venv", str(made.folder)], check=True)
            subprocess.run([made.program("python"), "-m", "pip", "install", "-q", requirement], check=True)
            stamp.touch()
        return made

    def program(self, name: str) -> str:
        return str(self.folder / "bin" / name)

    def mib(self) -> float:
        """Return what its packages take on disk, compiled modules included, as ``du`` counts."""
        [packages] = self.folder.glob("lib/python*/site-packages")
        tops = [top for top in packages.iterdir() if not top.name.startswith(NOT_COUNTED)]
        files = [file for top in tops for file in (top.rglob("*") if top.is_dir() else [top])]
        return sum(file.lstat().st_blocks for file in files) * 512 / 2**20

    def packages(self) -> int:
        """Return how many there are, taskapp itself among them."""
        argv = [self.program("python"), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
        listed = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
        return sum(each["name"] not in NOT_COUNTED for each in listed)


@dataclass
class Start:
    """Something that starts, and how long it took."""

    name: str
    argv: list[str]
    stock: str = ""
    """The start of stock Celery that it is compared with; empty: it is one."""
    seconds: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)

    def run(self, env: dict[str, str]) -> None:
        """Run it to its end."""
        done = subprocess.run([sys.executable, "-S", "-c", STOPWATCH, *self.argv], env=env, capture_output=True)
        seconds, mib, status = map(float, done.stdout.split())
        self.seconds.append(seconds)
        self.mib.append(mib)
        if status:
            sys.exit(f"{self.argv} failed")


def sizes(installs: list[Install]) -> str:
    """Return the table of what is installed."""
    rows = [f"| `{each.name or 'taskapp'}` | {each.mib():.0f} | {each.packages()} |" for each in installs]
    return "\n".join(["| install | MiB | packages |", "| --- | ---: | ---: |", *rows]) + "\n"


def commands(stock: Install, ours: Install) -> list[Start]:
    """Return what starts and ends by itself."""
    return [
        Start("`from celery import Celery`", [stock.program("python"), "-c", "from celery import Celery"]),
        Start(
            "`import taskapp.celery`", [ours.program("python"), "-c", "import taskapp.celery"],
            "`from celery import Celery`",
        ),
        Start(
            "the first `delay()` of a web process, Celery",
            [stock.program("python"), "-c", "import stock_app; stock_app.mark.delay('')"],
        ),
        Start(
            "the first `delay()` of a web process, taskapp",
            [ours.program("python"), "-c", "import our_tasks; our_tasks.mark.delay('')"],
            "the first `delay()` of a web process, Celery",
        ),
        Start("`celery --help`", [stock.program("celery"), "--help"]),
        Start("`taskapp --help`", [ours.program("taskapp"), "--help"], "`celery --help`"),
        Start("`taskapp dead list`", [ours.program("taskapp"), "dead", "list"], "`celery --help`"),
    ]  # fmt: skip


def nodes(stock: Install, ours: Install) -> list[Start]:
    """Return workers, one slot each; a node of ours is compared with stock Celery in both environments."""
    found = []
    for pool in ("solo", "prefork"):
        rest = ["worker", "-c", "1", "-P", pool, "-l", "WARNING"]
        alone, with_flower = f"Celery's worker, `-P {pool}`", f"the same, where Flower is installed, `-P {pool}`"
        found += [
            Start(alone, [stock.program("celery"), "-A", "stock_app", *rest]),
            Start(with_flower, [ours.program("celery"), "-A", "stock_app", *rest]),
            Start(f"a node, `-P {pool}`", [ours.program("celery"), "-A", "taskapp", *rest], alone),
            Start(
                f"a node, `-P {pool}`, with Flower installed",
                [ours.program("celery"), "-A", "taskapp", *rest],
                with_flower,
            ),
        ]
    own = [ours.program("celery"), "-A", "taskapp", "worker", "-c", "1", "-l", "WARNING"]
    return [*found, Start("a node with its own pool", own, "Celery's worker, `-P prefork`")]


def await_first_task(start: Start, env: dict[str, str], store: RedisStore, folder: Path) -> None:
    """Start a worker and wait until it has run the task that waits for it."""
    store.empty()
    mark = folder / "mark"
    mark.unlink(missing_ok=True)
    module = "stock_app" if "stock_app" in start.argv else "our_tasks"
    python = str(Path(start.argv[0]).with_name("python"))
    subprocess.run([python, "-c", f"import {module}; {module}.mark.delay({str(mark)!r})"], env=env, check=True)
    began = time.perf_counter()
    worker = Process(start.argv, env, folder / "worker.log")
    try:
        while not mark.exists():
            if worker.has_ended or time.perf_counter() - began > READY_SECONDS:
                sys.exit(f"{start.name} ran no task: {worker.last_words()}")
            time.sleep(LOOK_SECONDS)
        start.seconds.append(time.perf_counter() - began)
        start.mib.append(worker.peak_mib())
    finally:
        worker.end()


def starts_table(starts: list[Start]) -> str:
    """Return the table of medians and ratios."""
    medians = {each.name: statistics.median(each.seconds) for each in starts}
    lines = ["| start | ms | vs stock | MiB |", "| --- | ---: | ---: | ---: |"]
    for each in starts:
        ratio = f"{medians[each.name] / medians[each.stock]:.2f} {TIMES}" if each.stock else ""
        lines.append(
            f"| {each.name} | {medians[each.name] * 1_000:,.0f} | {ratio} | {statistics.median(each.mib):.0f} |"
        )
    return "\n".join(lines) + "\n"


def measure(options: argparse.Namespace, folder: Path) -> str:
    """Install, start, and return the tables."""
    extras = ("mail", "http", "data", "reports", "tasks", "top")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {*extras} <= {*declared}
    stock = Install.make("celery[redis]", STOCK, folder)
    ours = Install.make("", str(ROOT), folder)
    installs = [stock, ours, *(Install.make(f"taskapp[{name}]", f"{ROOT}[{name}]", folder) for name in extras)]
    site = folder / "site"
    site.mkdir(exist_ok=True)
    store = RedisStore(site)
    try:
        store.await_ready()
        (site / "stock_app.py").write_text(STOCK_APP.format(url=store.url))
        (site / "our_tasks.py").write_text(OUR_TASKS)
        env = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PYTHONPATH": str(site), "TASKAPP_BROKER_URL": store.url, "TASKAPP_DATA_DIR": str(site / "data"),
            "TASKAPP_ENV_FILE": "", "TASKAPP_INCLUDE": "our_tasks",
        }  # fmt: skip
        ending, staying = commands(stock, ours), nodes(stock, ours)
        for number in range(options.rounds + 1):
            for each in ending:
                each.run(env)
                if not number:  # the first one reads from the disk
                    each.seconds.clear(), each.mib.clear()
        for _ in range(options.node_rounds):
            for each in staying:
                await_first_task(each, env, store, site)
    finally:
        store.close()
    return (
        f"{sizes(installs)}\nOf a fresh virtual environment, without pip and setuptools.\n\n"
        f"{starts_table(ending + staying)}\nMedians of {options.rounds} starts in turns, of workers "
        f"{options.node_rounds}: from the start of the process until it has run a task that was waiting.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="starts of each command")
    parser.add_argument("--node-rounds", type=int, default=5, help="starts of each worker")
    parser.add_argument("--folder", type=Path, help="where the installs are kept; by default they are deleted")
    parser.add_argument("--no-write", action="store_true", help="print the tables only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        tables = measure(options, folder.resolve())
    print(tables)
    if not options.no_write:
        PATH.write_text(tables)


if __name__ == "__main__":
    main()
