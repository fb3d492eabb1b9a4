"""What the history costs with a million tasks: a page of a search, and writing a task.

    python -m benchmarks.history --database sqlite,postgresql,mariadb --rows 1000000

PostgreSQL and MariaDB are Debian's, with default settings, started for this on a port of their own.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from time import perf_counter, time
from typing import NamedTuple
from zlib import crc32

from taskapp.engine.completions import Finished
from taskapp.monitor.history import History, Query
from tests.integration.databases import DATABASES

BATCH = 1_000
RUNS = 5
DAYS = 30
BEGIN = time() - DAYS * 86_400
TYPES = [f"shop.task_{number}" for number in range(50)]
QUEUES = ("critical", "high", "default", "low")
STATES = ("succeeded", "failed", "dead", "cancelled", "ignored")
SEED = 6


class Asked(NamedTuple):
    """A search: its name and its query."""

    words: str
    query: Query
    pages: int = 1
    """Number of pages; the last one is measured."""


def asked(rows: int) -> list[Asked]:
    """Return the searches: with many and few matches, and those that no single index answers."""
    middle = BEGIN + DAYS * 43_200
    return [
        Asked("all", Query()),
        Asked("all, page 20", Query(), 20),
        Asked("a frequent type", Query(type=TYPES[0])),
        Asked("a rare type", Query(type="shop.rare")),
        Asked("unknown type", Query(type="shop.none")),
        Asked("a state of 1 in 50", Query(states=["failed"])),
        Asked("a state of 1 in 5,000", Query(states=["dead"])),
        Asked("three states", Query(states=["failed", "dead", "cancelled"])),
        Asked("type and rare state", Query(type=TYPES[0], states=["dead"])),
        Asked("type without such a state", Query(type="shop.rare", states=["dead"])),
        Asked("queue and rare state", Query(queue="low", states=["dead"])),
        Asked("rare type in another queue", Query(type="shop.rare", queue="critical")),
        Asked("frequent type in another queue", Query(type=TYPES[0], queue="critical")),
        Asked("an hour two weeks ago", Query(since=middle, until=middle + 3_600)),
        Asked("a state until two weeks ago", Query(states=["failed"], until=middle)),
        Asked("a rare type since two weeks ago", Query(type="shop.rare", since=middle)),
        Asked("a text in every task", Query(text="order")),
        Asked("a text in no task", Query(text="nowhere at all")),
        Asked("a text in no task, of a type", Query(text="nowhere at all", type=TYPES[0])),
        Asked("a text in no task, of a type of 1 in 150", Query(text="nowhere at all", type=TYPES[-1])),
        Asked("a text in no task, of a state of 1 in 50", Query(text="nowhere at all", states=["failed"])),
        Asked(f"a text in one task of {rows:,}", Query(text="order-777777'")),
    ]


def finished(rows: int) -> Iterator[list[Finished]]:
    """Yield tasks in the order in which they finished: a few types account for most, one in fifty fails."""
    dice = random.Random(SEED)
    step_us = int(DAYS * 86_400 * 1_000_000 / rows)
    for start in range(0, rows, BATCH):
        batch = []
        for number in range(start, min(start + BATCH, rows)):
            kind = "shop.rare" if number % 20_000 == 7 else TYPES[int(len(TYPES) * dice.random() ** 3)]
            state = dice.choices(STATES, (975, 20, 0.2, 3, 1.8))[0]
            failed = state in ("failed", "dead")
            at_us = int(BEGIN * 1_000_000) + number * step_us
            batch.append(Finished(
                at_us, f"{dice.getrandbits(128):032x}", kind,
                # Each type has one queue.
                QUEUES[1 + crc32(kind.encode()) % 3] if kind != "shop.rare" else "low",
                state, dice.randrange(10), "worker@host-1", at_us / 1e6 - 1, at_us / 1e6 - 0.5, 0.5, 1,
                args=f"('order-{number}', {dice.randrange(10**9)})",
                kwargs=f"{{'customer': 'customer-{dice.randrange(10**6)}', 'total': {dice.random():.2f}}}",
                result="" if failed else "'confirmed'",
                error="ConnectionError: the payment service does not answer" if failed else "",
                traceback="  File …, line 1, in confirm\n" * 40 if failed else "",
            ))  # fmt: skip
        yield batch


def fill(history: History, rows: int) -> float:
    """Write ``rows`` tasks; return how many per second."""
    history.create()
    seconds = 0.0
    for batch in finished(rows):
        began = perf_counter()
        history.add(batch)
        seconds += perf_counter() - began
    return rows / seconds


def measure(history: History, one: Asked) -> tuple[float, float, int]:
    """Return the median and the longest time of the search in ms, and how many tasks it found."""
    after = None
    for _ in range(one.pages - 1):
        after = history.search(one.query, after=after).next
    took = []
    for _ in range(RUNS):
        began = perf_counter()
        page = history.search(one.query, after=after)
        took.append((perf_counter() - began) * 1_000)
    return statistics.median(took), max(took), len(page.tasks)


def report(name: str, history: History, rows: int) -> None:
    """Fill ``history`` and print the figures."""
    print(f"## {name}, {rows:,} tasks\n\nwritten: {fill(history, rows):,.0f} a second\n")
    print("| search | found | median ms | longest ms |\n|---|---|---|---|")
    for one in asked(rows):
        median, longest, found = measure(history, one)
        print(f"| {one.words} | {found} | {median:.1f} | {longest:.1f} |", flush=True)
    task_id = history.search(Query(type="shop.rare")).tasks[-1].id if rows > 20_000 else "none"
    began = perf_counter()
    history.get(task_id)
    print(f"| by id | 1 | {(perf_counter() - began) * 1_000:.1f} | |")
    began = perf_counter()
    gone = history.prune(DAYS * 43_200)
    print(f"\n{gone} old tasks deleted in {(perf_counter() - began) * 1_000:.0f} ms\n", flush=True)


def main() -> None:
    """Measure each requested database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", default="sqlite,postgresql,mariadb")
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    for name in options.database.split(","):
        with ExitStack() as held:
            if name == "sqlite":
                directory = held.enter_context(tempfile.TemporaryDirectory())
                url = f"sqlite:///{Path(directory) / 'history.sqlite'}"
            elif not DATABASES[name].is_installed():
                print(f"## {name}: not installed (Debian: apt install {DATABASES[name].package})\n")
                continue
            else:
                url = held.enter_context(closing(DATABASES[name]())).url
            report(name, History(url), options.rows)


if __name__ == "__main__":
    main()
