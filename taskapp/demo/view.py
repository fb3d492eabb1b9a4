"""The demo's output: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from taskapp.processes import check_interrupted
from taskapp.sanitize import sanitize

PLAIN_EVERY_SECONDS = 2.0
REFRESH_PER_SECOND = 8


@dataclass
class Picture:
    """State of the system at one moment."""

    waiting: dict[str, int] = field(default_factory=dict)
    """Ready messages by queue, in the order nodes take from them."""
    done: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Finished and total tasks, by step."""
    nodes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Running tasks and slots, by node."""


class ProgressView:
    """Draws pictures; ``say`` prints a line above or between them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._plain_at = 0.0
        self._plain_last = ""

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw live during the block, if there is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=REFRESH_PER_SECOND, transient=True) as self._live:
            try:
                yield
            finally:
                self._live = None

    def say(self, line: str) -> None:
        """Print ``line`` permanently."""
        self.console.print(sanitize(line), highlight=False, soft_wrap=True)

    def show(self, picture: Picture) -> None:
        """Draw ``picture``; without a terminal, print it as one line if it changed."""
        if self._live is not None:
            self._live.update(_drawn(picture))
            return
        line = _as_line(picture)
        if line != self._plain_last and time.monotonic() - self._plain_at >= PLAIN_EVERY_SECONDS:
            self._plain_at, self._plain_last = time.monotonic(), line
            self.say(line)

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print a table; all columns but the first are right-aligned."""
        table = Table(title=title, title_justify="left", header_style="bold")
        for position, column in enumerate(columns):
            table.add_column(column, justify="left" if position == 0 else "right")
        for row in rows:
            table.add_row(*map(sanitize, row))
        self.console.print(table)


def until(
    condition: Callable[[], bool], view: ProgressView, picture: Callable[[], Picture], within_seconds: float
) -> bool:
    """Draw until ``condition`` holds; return whether it did within ``within_seconds``."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        check_interrupted()
        if time.monotonic() > deadline:
            return False
        view.show(picture())
        time.sleep(0.1)
    view.show(picture())
    return True


def _drawn(picture: Picture) -> Panel:
    queues = Table.grid(padding=(0, 2))
    for name, count in picture.waiting.items():
        queues.add_row(sanitize(name), Text(f"{count:>4} waiting", style="bold" if count else "dim"))
    bars = Table.grid(padding=(0, 2))
    for name, (done, total) in picture.done.items():
        bars.add_row(name, ProgressBar(total=max(total, 1), completed=done, width=32), f"{done}/{total}")
    nodes = Table.grid(padding=(0, 2))
    for name, (running, slots) in picture.nodes.items():
        nodes.add_row(sanitize(name), "●" * running + "○" * max(0, slots - running), f"{running}/{slots} busy")
    top = Table.grid(padding=(0, 6))
    top.add_row(queues, nodes)
    return Panel(Group(top, Text(), bars), title="taskapp", expand=False)


def _as_line(picture: Picture) -> str:
    steps = ", ".join(f"{name} {done}/{total}" for name, (done, total) in picture.done.items())
    queues = ", ".join(f"{name} {count}" for name, count in picture.waiting.items())
    busy = ", ".join(f"{name} {running}/{slots}" for name, (running, slots) in picture.nodes.items())
    return f"done: {steps} | waiting: {queues} | busy: {busy}"
